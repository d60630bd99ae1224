"""P7 close: everybody wakes, everything is drained, nothing is freed too early."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import portio
from support.children import run_script
from support.drivers import Driver
from support.marks import wine_cannot_disassociate
from support.net import Net, fill, recv_exactly
from support.system import LOCAL, WINE
from support.threads import Background
from support.watch import LIMIT, eventually, wait_until_blocked

MakePort = Callable[..., portio.Port]


@pytest.mark.core
def test_p7_close_is_idempotent(port: portio.Port) -> None:
    port.close()
    assert port.closed
    port.close()
    assert port.closed


def test_p7_with_closes(make_port: MakePort) -> None:
    with make_port() as port:
        assert not port.closed
    assert port.closed
    with pytest.raises(KeyError), make_port() as failing:
        raise KeyError
    assert failing.closed


def test_p7_a_closed_port_cannot_be_entered(port: portio.Port) -> None:
    port.close()
    with pytest.raises(portio.PortClosedError), port:
        pass


def test_p7_the_error_is_of_the_right_family() -> None:
    assert issubclass(portio.PortClosedError, OSError)
    assert not issubclass(portio.PortClosedError, ConnectionError)


@pytest.mark.core
def test_p7_every_waiter_wakes(shared_port: portio.Port) -> None:
    waits: list[Callable[[], object]] = [
        shared_port.get,
        lambda: shared_port.get(1000),
        shared_port.get_many,
        shared_port.get,
    ]
    waiters = [Background(wait) for wait in waits]
    wait_until_blocked(*waiters)
    shared_port.close()
    for waiter in waiters:
        with pytest.raises(portio.PortClosedError):
            waiter.result()


def test_p7_a_waiter_for_an_unqueued_operation_wakes(shared_port: portio.Port) -> None:
    timer = portio.Timer(1000)
    shared_port.submit(timer, queued=False)
    waiter = Background(timer.wait)
    wait_until_blocked(waiter)
    shared_port.close()
    with pytest.raises((portio.PortClosedError, portio.OperationCancelledError)):
        _result_of(waiter.result())


def _result_of(completion: portio.Completion[Any] | None) -> None:
    assert completion is not None
    completion.result()


def test_p7_later_calls_raise(port: portio.Port, net: Net) -> None:
    ours, _ = net.pair()
    other, _ = net.pair()
    key = port.associate(ours)
    operation = portio.Recv(key, bytearray(4))
    unstarted = portio.Timer(0)
    port.close()

    def use_blocking() -> None:
        with port.blocking():
            pass

    calls: dict[str, Callable[[], object]] = {
        "get": port.get,
        "get(0)": lambda: port.get(0),
        "get_many": lambda: port.get_many(4, 0),
        "post": port.post,
        "post(key)": lambda: port.post(key),
        "submit": lambda: port.submit(unstarted),
        "submit unqueued": lambda: port.submit(unstarted, queued=False),
        "associate": lambda: port.associate(other),
        "disassociate": lambda: port.disassociate(key),
        "flush": port.flush,
        "fileno": port.fileno,
        "blocking": use_blocking,
    }
    outcomes = {name: _outcome(call) for name, call in calls.items()}
    assert outcomes == dict.fromkeys(calls, portio.PortClosedError)
    with pytest.raises((portio.PortClosedError, ValueError)):
        port.submit(operation)  # closed port, and a key without one
    assert not unstarted.pending
    assert not operation.pending


def _outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - which one is the question
        return type(error)


@pytest.mark.core
def test_p7_pending_operations_are_cancelled_and_drained(driver: Driver, net: Net) -> None:
    """After close the kernel writes into no buffer any more, and no data is lost to it."""
    ours, peer = net.pair()
    buffer = bytearray(64)
    receive = portio.Recv(driver.associate(ours), buffer)
    listener = net.listener()
    reader, writer = portio.pipe()
    with reader, writer:
        pipe_buffer = bytearray(16)
        others = [
            portio.Accept(driver.associate(listener)),
            portio.Read(driver.associate(reader), pipe_buffer),
            portio.Timer(1000),
        ]
        driver.submit(receive, *others)
        driver.close()
        assert not any(operation.pending for operation in [receive, *others])
        peer.sendall(b"after the end")
        assert recv_exactly(ours, 13) == b"after the end"
        assert buffer == bytes(64)
        assert pipe_buffer == bytes(16)
        buffer.extend(b"free")  # BufferError while something holds it
        pipe_buffer.extend(b"free")


def test_p7_whatever_the_peer_does(driver: Driver, net: Net) -> None:
    """A peer that never reads keeps no close waiting, and one that floods it neither."""
    ours, deaf = net.small_pair()
    fill(ours)
    send = portio.Send(driver.associate(ours), bytes(1 << 20))
    flooded, flooder = net.pair()
    driver.submit(send, portio.Recv(driver.associate(flooded), bytearray(1)))

    def flood() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                flooder.sendall(b"x" * 65536)

    stop = threading.Event()
    flooding = Background(flood)
    driver.close()
    stop.set()
    flooder.shutdown(socket.SHUT_RDWR)
    flooding.result()
    assert not send.pending
    assert deaf.fileno() >= 0  # it was there all the time


@wine_cannot_disassociate
def test_p7_handles_stay_open_and_usable(driver: Driver, net: Net, backend: str) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    driver.submit(portio.Recv(key, bytearray(8)))
    driver.close()
    assert ours.fileno() >= 0
    with Background(peer.sendall, b"still here"):
        assert recv_exactly(ours, 10) == b"still here"
    with portio.Port(backend=backend) as next_port:
        send = portio.Send(next_port.associate(ours), b"again")
        next_port.submit(send)
        done = next_port.get(LIMIT)
        assert done is not None
        assert done.result() == 5
    assert recv_exactly(peer, 5) == b"again"


def test_p7_keys_are_dead(driver: Driver, net: Net, backend: str) -> None:
    ours, _ = net.pair()
    key = driver.associate(ours)
    driver.close()
    assert key.closed or key.port is None or key.port.closed
    with portio.Port(backend=backend) as other:
        operation = portio.Recv(key, bytearray(1))
        with pytest.raises((ValueError, portio.PortClosedError)):
            other.submit(operation)
        assert not operation.pending


def test_p7_accepted_but_not_taken_is_closed(port: portio.Port, net: Net) -> None:
    """A connection that was accepted into a packet that nobody took sees its end."""
    listener = net.listener()
    port.submit(portio.Accept(port.associate(listener)))
    peer = net.client(listener)
    port.submit(timer := portio.Timer(0))
    # Once the timer's packet can be taken, the system has been asked for more.
    done = port.get(LIMIT)
    assert done is not None
    if done.operation is timer:
        pass
    else:  # it was the accept: then it is ours to close
        done.result().close()
    port.close()
    listener.close()
    try:
        assert peer.recv(1) == b""
    except ConnectionResetError:
        pass


def test_p7_packets_not_taken_vanish(port: portio.Port) -> None:
    for _ in range(10):
        port.post()
    port.close()
    with pytest.raises(portio.PortClosedError):
        port.get(0)


def test_p7_close_while_others_submit_and_post(make_port: MakePort, net: Net) -> None:
    """Whoever comes too late hears it; nobody hangs and nothing crashes."""
    for _ in range(3 if WINE else 10):
        port = make_port()
        pairs = [net.pair(LOCAL) for _ in range(4)]
        keys = [port.associate(ours) for ours, _ in pairs]
        start = threading.Barrier(10)
        seen: list[int] = []

        def submit(key: portio.CompletionKey) -> None:
            start.wait(LIMIT)
            while True:
                port.submit(portio.Recv(key, bytearray(16)))

        def post() -> None:
            start.wait(LIMIT)
            while True:
                port.post(None, 1, object())

        def take() -> None:
            start.wait(LIMIT)
            while True:
                seen.append(port.get().nbytes)

        threads = [Background(submit, key) for key in keys]
        threads += [Background(post) for _ in range(2)] + [Background(take) for _ in range(3)]
        start.wait(LIMIT)
        eventually(lambda seen=seen: len(seen) > 20, "the port is in full use")
        port.close()
        for thread in threads:
            with pytest.raises((portio.PortClosedError, ValueError)):
                thread.result()
        for ours, peer in pairs:
            ours.close()
            peer.close()


def test_p7_close_as_waiters_arrive(make_port: MakePort) -> None:
    """Between a waiter's last look and its sleep, the wake-up must not get lost."""
    for number in range(60):
        port = make_port(4)
        waiters = [Background(list, port) for _ in range(3)]
        if number % 2:
            port.post()
        port.close()
        for waiter in waiters:
            waiter.result()


def test_p7_concurrent_closes_all_return(make_port: MakePort, net: Net) -> None:
    port = make_port()
    ours, _ = net.pair()
    port.submit(portio.Recv(port.associate(ours), bytearray(8)))
    for closer in [Background(port.close) for _ in range(6)]:
        closer.result()
    assert port.closed


def test_p7_close_in_a_worker(make_port: MakePort) -> None:
    """A worker may close the port that it and others serve."""
    port = make_port()

    def serve() -> None:
        for packet in port:
            if packet.payload == "stop":
                port.close()

    workers = [Background(serve) for _ in range(4)]
    port.post(payload="stop")
    for worker in workers:
        worker.result()
    assert port.closed


# Collected while open


@pytest.fixture
def no_automatic_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("thread_bound", [False, True])
def test_p7_collected_while_open_warns_and_drains_first(
    backend: str, net: Net, thread_bound: bool, no_automatic_collection: None
) -> None:
    del no_automatic_collection
    ours, peer = net.pair()
    buffer = bytearray(64)

    def abandon() -> weakref.ref[portio.Port]:
        port = portio.Port(backend=backend, thread_bound=thread_bound)
        port.submit(portio.Recv(port.associate(ours), buffer))
        return weakref.ref(port)

    with pytest.warns(ResourceWarning, match="(?i)port"):
        port = abandon()
        gc.collect()
    assert port() is None
    peer.sendall(b"too late")
    assert recv_exactly(ours, 8) == b"too late"
    assert buffer == bytes(64)
    buffer.append(0)


def test_p7_a_pending_operation_does_not_live_less_than_its_port(
    backend: str, net: Net, no_automatic_collection: None
) -> None:
    """The program keeps nothing but the port: that alone must keep the rest."""
    del no_automatic_collection
    ours, peer = net.pair()
    with portio.Port(backend=backend) as port:

        def start() -> None:
            port.submit(portio.Recv(port.associate(ours), bytearray(64)))

        start()
        gc.collect()
        peer.sendall(b"12345")
        done = port.get(LIMIT)
        assert done is not None
        assert done.result() == 5
        assert isinstance(done.operation, portio.Recv)
        assert done.operation.buffer[:5] == b"12345"


def test_p7_a_port_closed_properly_does_not_warn(
    backend: str, recwarn: pytest.WarningsRecorder
) -> None:
    portio.Port(backend=backend).close()
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []


EXIT = """
    import socket, sys, threading, portio
    backend, bound, waiters = sys.argv[1], sys.argv[2] == "thread_bound", int(sys.argv[3])
    ours, peer = socket.socketpair()
    port = portio.Port(backend=backend, thread_bound=bound)
    reader, writer = portio.pipe()
    pending = [portio.Recv(port.associate(ours), bytearray(1 << 20)),
               portio.Read(port.associate(reader), bytearray(4096)),
               portio.Timer(1000)]
    port.submit(*pending)
    port.submit(portio.Timer(1000), queued=False)
    for _ in range(waiters):
        threading.Thread(target=port.get, daemon=True).start()
    print("leaving")
"""


@pytest.mark.parametrize(("kind", "waiters"), [("shared", 0), ("shared", 3), ("thread_bound", 0)])
def test_p7_a_program_may_end_with_everything_pending(
    backend: str, kind: str, waiters: int
) -> None:
    assert run_script(EXIT, backend, kind, waiters) == "leaving\n"
