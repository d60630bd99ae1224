"""Ports whose creating thread has ended (P9)."""

from __future__ import annotations

import gc
import socket

import pytest

import portio
from support.threads import Background, in_thread
from support.watch import LIMIT

pytestmark = pytest.mark.usefixtures("no_leak")


def test_shared_port_of_an_ended_thread(backend: str) -> None:
    """A shared port belongs to nobody, and neither do its operations."""
    ours, peer = socket.socketpair()

    def create() -> portio.Port:
        port = portio.Port(backend=backend)
        port.submit(portio.Recv(port.associate(ours, "first"), bytearray(8)))
        port.submit(portio.Timer(0.01))
        return port

    with ours, peer, in_thread(create) as port:
        first = port.get(LIMIT)
        assert first is not None
        assert isinstance(first.operation, portio.Timer)
        assert first.error is None
        peer.send(b"hello")
        second = port.get(LIMIT)
        assert second is not None
        assert second.key is not None
        assert second.key.data == "first"
        assert second.result() == 5
        port.submit(portio.Send(second.key, b"back"))
        third = port.get(LIMIT)
        assert third is not None
        assert third.result() == 4
        assert in_thread(port.get, 0) is None


def test_thread_bound_port_of_an_ended_thread(backend: str) -> None:
    """Nobody may use it, anybody may close it."""
    ours, peer = socket.socketpair()
    spare, _spare = socket.socketpair()
    buffer = bytearray(8)

    def create() -> tuple[portio.Port, portio.Recv]:
        port = portio.Port(backend=backend, thread_bound=True)
        receive = portio.Recv(port.associate(ours), buffer)
        port.submit(receive)
        port.submit(portio.Timer(1000))
        port.post(None, 1)
        return port, receive

    with ours, peer, spare, _spare:
        port, receive = in_thread(create)
        for use in (
            lambda: port.get(0),
            lambda: port.get_many(timeout=0),
            lambda: port.submit(portio.Timer(0)),
            lambda: port.associate(spare),
        ):
            with pytest.raises(RuntimeError):
                use()
        peer.send(b"hello")
        receive.cancel()  # legal from anywhere
        port.post(None, 2)
        port.close()
        assert port.closed
        buffer.append(0)
        assert ours.fileno() >= 0
        with pytest.raises(portio.PortClosedError):
            port.get(0)
        port.close()


def test_close_while_the_owner_lives(backend: str) -> None:
    """Closing a thread-bound port from elsewhere raises as long as its owner lives."""
    with portio.Port(backend=backend, thread_bound=True) as port:
        with pytest.raises(RuntimeError):
            in_thread(port.close)
        assert not port.closed
        port.post(None, 3)
        completion = port.get(LIMIT)
        assert completion is not None
        assert completion.nbytes == 3


@pytest.mark.parametrize("thread_bound", [False, True], ids=["shared", "thread_bound"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_forgotten_by_an_ended_thread(backend: str, *, thread_bound: bool) -> None:
    """What a thread has forgotten is given back, whoever collects it."""
    buffers = [bytearray(8) for _ in range(20)]

    def forget(buffer: bytearray) -> None:
        port = portio.Port(backend=backend, thread_bound=thread_bound)
        ours, peer = socket.socketpair()
        port.submit(portio.Recv(port.associate(ours), buffer))
        here: list[object] = [port, ours, peer]
        here.append(here)  # only the collector can find it

    gc.disable()
    try:
        for buffer in buffers:
            in_thread(forget, buffer)
    finally:
        gc.enable()
    gc.collect()
    for buffer in buffers:
        buffer.append(0)


def test_waiting_owner_hears_others(backend: str) -> None:
    """An owner that waits carries out what other threads ask of it."""
    ours, peer = socket.socketpair()
    with ours, peer, portio.Port(backend=backend, thread_bound=True) as port:
        receive = portio.Recv(port.associate(ours), bytearray(8))
        port.submit(receive)
        with Background(receive.cancel):
            completion = port.get(LIMIT)
        assert completion is not None
        assert completion.operation is receive
        assert isinstance(completion.error, portio.OperationCancelledError)
        with Background(port.post, None, 7):
            completion = port.get(LIMIT)
        assert completion is not None
        assert completion.nbytes == 7
