"""K1 associate, K2 data, K3 free keys."""

from __future__ import annotations

import gc
import os
import socket
from pathlib import Path
from typing import Any

import pytest

import portio
from support import handles
from support.drivers import Driver
from support.marks import needs_chosen_numbers, wine_cannot_disassociate
from support.net import STREAMS, Net
from support.system import WINDOWS
from support.watch import LIMIT


class HasFileno:
    """Something of the program's own that has a descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd


# K1 associate


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_k1_a_socket(driver: Driver, net: Net, family: str) -> None:
    ours, peer = net.pair(family)
    key = driver.associate(ours)
    assert isinstance(key, portio.CompletionKey)
    assert key.handle is ours
    assert key.port is driver.port
    assert not key.closed
    assert key.data is None
    assert driver.result(portio.Send(key, b"hello")) == 5
    assert peer.recv(8) == b"hello"


def test_k1_a_file_and_both_ends_of_a_pipe(driver: Driver, tmp_path: Path) -> None:
    reader, writer = portio.pipe()
    with portio.open(tmp_path / "file", "w+") as file, reader, writer:
        for handle in (file, reader, writer):
            assert driver.associate(handle).handle is handle


def test_k1_raw_descriptors(driver: Driver, net: Net, tmp_path: Path) -> None:
    ours, peer = net.pair()
    assert driver.result(portio.Send(driver.associate(ours.fileno()), b"raw")) == 3
    assert peer.recv(8) == b"raw"
    read_end, write_end = handles.open_pipe()
    file = handles.open_file(tmp_path / "file")
    try:
        assert driver.result(portio.Write(driver.associate(write_end), b"raw")) == 3
        buffer = bytearray(8)
        assert driver.result(portio.Read(driver.associate(read_end), buffer)) == 3
        assert driver.result(portio.Write(driver.associate(file), b"file", 2)) == 4
        assert (tmp_path / "file").read_bytes() == b"\0\0file"
    finally:
        driver.close()
        for number in (read_end, write_end, file):
            handles.close(number)


def test_k1_an_object_with_a_fileno(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    holder = HasFileno(ours.fileno())
    key = driver.associate(holder)
    assert key.handle is holder
    assert driver.result(portio.Send(key, b"held")) == 4
    assert peer.recv(8) == b"held"


@pytest.mark.skipif(WINDOWS, reason="Python opens no file for overlapped I/O")
def test_k1_a_file_object_of_python(driver: Driver, tmp_path: Path) -> None:
    with open(tmp_path / "plain", "wb+") as plain:
        assert driver.result(portio.Write(driver.associate(plain), b"plain")) == 5
        driver.close()
    assert (tmp_path / "plain").read_bytes() == b"plain"


@pytest.mark.core
@pytest.mark.parametrize("mode", ["blocking", "non-blocking", "time-out"])
def test_k1_the_mode_of_the_socket_does_not_matter(driver: Driver, net: Net, mode: str) -> None:
    """An operation waits as long as it takes, whatever the socket's own habit is."""
    ours, peer = net.pair()
    ours.settimeout({"blocking": None, "non-blocking": 0.0, "time-out": 0.01}[mode])
    receive = portio.Recv(driver.associate(ours), bytearray(4))
    driver.submit(receive)
    driver.assert_quiet()
    peer.sendall(b"now")
    assert driver.wait_for(receive).result() == 3


def test_k1_non_blocking_pipes_and_listeners_too(driver: Driver, net: Net) -> None:
    read_end, write_end = handles.open_pipe(blocking=False)
    listener = net.listener()
    listener.setblocking(False)
    connecting = net.socket()
    connecting.setblocking(False)
    try:
        read = portio.Read(driver.associate(read_end), bytearray(4))
        accept = portio.Accept(driver.associate(listener))
        driver.submit(read, accept)
        driver.assert_quiet()
        handles.write(write_end, b"x")
        assert driver.wait_for(read).result() == 1
        connect = portio.Connect(driver.associate(connecting), listener.getsockname())
        assert driver.run(connect).result() is None
        net.own(driver.wait_for(accept).result())
        driver.close()
    finally:
        handles.close(read_end)
        handles.close(write_end)


@pytest.mark.core
def test_k1_a_second_association_raises(driver: Driver, net: Net, backend: str) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours, "first")
    for again in (ours, ours.fileno(), HasFileno(ours.fileno())):
        with pytest.raises((ValueError, OSError)):
            driver.associate(again)
        with portio.Port(backend=backend) as other, pytest.raises((ValueError, OSError)):
            other.associate(again)
    peer.sendall(b"still the first")
    done = driver.run(portio.Recv(key, bytearray(32)))
    assert done.result() == 15
    assert done.key is key


def test_k1_another_backends_port_is_another_port_too(driver: Driver, net: Net) -> None:
    ours, _ = net.pair()
    key = driver.associate(ours)
    for name, status in portio.backends.available().items():
        if status.available:
            with portio.Port(backend=name) as other, pytest.raises((ValueError, OSError)):
                other.associate(ours)
    assert key.handle is ours


@wine_cannot_disassociate
def test_k1_free_again_once_the_port_is_closed(driver: Driver, net: Net, backend: str) -> None:
    ours, _ = net.pair()
    with portio.Port(backend=backend) as first:
        first.associate(ours)
    assert driver.associate(ours).handle is ours


@wine_cannot_disassociate
def test_k1_free_again_once_the_port_is_collected(driver: Driver, net: Net, backend: str) -> None:
    ours, _ = net.pair()

    def abandon() -> None:
        portio.Port(backend=backend).associate(ours)

    with pytest.warns(ResourceWarning):
        abandon()
        gc.collect()
    assert driver.associate(ours).handle is ours


def test_k1_nothing_that_is_no_handle(driver: Driver, net: Net) -> None:
    closed = net.socket()
    closed.close()
    bad: Any
    for bad in ("text", None, 1.5, object(), b"x", [3]):
        with pytest.raises(TypeError):
            driver.associate(bad)
    for bad in (closed, -1):
        with pytest.raises((ValueError, OSError)):
            driver.associate(bad)
    with pytest.raises(OSError, match=r"(?i)descriptor|handle") as caught:
        driver.associate(handles.unused())
    assert caught.value.errno == 9  # EBADF


@needs_chosen_numbers
def test_k1_a_failed_association_leaves_no_trace(driver: Driver, net: Net) -> None:
    """The number that failed may be a good one the next time."""
    probe = os.dup(0)
    os.close(probe)
    with pytest.raises(OSError):  # noqa: PT011 - whatever the system says
        driver.associate(probe)
    ours, peer = socket.socketpair()
    net.own(ours)
    net.own(peer)
    moved = os.dup2(ours.fileno(), probe)
    try:
        assert driver.result(portio.Send(driver.associate(moved), b"ok")) == 2
        driver.close()
    finally:
        os.close(moved)


def test_k1_descriptors_that_cannot_do_io(driver: Driver, tmp_path: Path) -> None:
    """A directory is no file for a port: an error at once, or with the operation."""
    folder = handles.open_folder(tmp_path)
    try:
        try:
            key = driver.associate(folder)
        except (OSError, ValueError):
            return
        done = driver.run(portio.Read(key, bytearray(8)))
        assert isinstance(done.error, IsADirectoryError)
        driver.close()
    finally:
        handles.close(folder)


# K2 data


@pytest.mark.core
def test_k2_the_same_object_with_every_completion(driver: Driver, net: Net) -> None:
    class Session:
        pass

    sessions = {}
    peers = []
    for _ in range(3):
        ours, peer = net.pair()
        session = Session()
        sessions[driver.associate(ours, session)] = session
        peers.append(peer)
    for key, peer in zip(sessions, peers, strict=True):
        for _ in range(3):
            peer.sendall(b"x")
            done = driver.run(portio.Recv(key, bytearray(1)))
            assert done.key is key
            assert done.key.data is sessions[key]
    # with failures and cancellations as well
    for key, session in sessions.items():
        driver.submit(receive := portio.Recv(key, bytearray(1)))
        driver.cancel(receive)
        done = driver.wait_for(receive)
        assert done.error is not None
        assert done.key is key
        assert done.key.data is session


def test_k2_data_may_be_replaced(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours, "before")
    driver.submit(receive := portio.Recv(key, bytearray(1)))
    key.data = after = ["after"]
    peer.sendall(b"x")
    done = driver.wait_for(receive)
    assert done.key is not None
    assert done.key.data is after


def test_k2_any_object_will_do(driver: Driver, net: Net) -> None:
    """Also one that can neither be hashed nor compared, and a false one."""

    class Odd:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        def __bool__(self) -> bool:
            raise AssertionError("asked for its truth")

    odd = Odd()
    ours, peer = net.pair()
    key = driver.associate(ours, odd)
    peer.sendall(b"x")
    done = driver.run(portio.Recv(key, bytearray(1)))
    assert done.key is not None
    assert done.key.data is odd
    driver.post(key, 0, odd)
    [packet] = driver.take()
    assert packet.payload is odd


def test_k2_keys_are_told_apart_and_can_be_hashed(driver: Driver, net: Net) -> None:
    one, _ = net.pair()
    two, _ = net.pair()
    keys = {driver.associate(one, "same"), driver.associate(two, "same")}
    keys.add(portio.CompletionKey("same"))
    assert len(keys) == 3


# K3 free keys


@pytest.mark.core
def test_k3_a_key_without_a_handle(driver: Driver) -> None:
    shutdown = portio.CompletionKey("shutdown")
    assert shutdown.data == "shutdown"
    assert shutdown.handle is None
    assert shutdown.port is None
    driver.post(shutdown, 3, "payload")
    [packet] = driver.take()
    assert packet.key is shutdown
    match packet:
        case portio.Completion(operation=None, key=key) if key is shutdown:
            pass
        case _:
            pytest.fail("the classic way to see a shutdown packet does not match")


def test_k3_one_free_key_for_many_ports(driver: Driver, backend: str) -> None:
    shutdown = portio.CompletionKey("shutdown")
    with portio.Port(backend=backend) as other:
        other.post(shutdown, 1)
        driver.post(shutdown, 2)
        packet = other.get(LIMIT)
        assert packet is not None
        assert (packet.key, packet.nbytes) == (shutdown, 1)
        assert [p.nbytes for p in driver.take()] == [2]
    driver.post(shutdown, 3)
    assert [p.nbytes for p in driver.take()] == [3]


def test_k3_a_free_key_cannot_carry_io(driver: Driver) -> None:
    free = portio.CompletionKey("free")
    for operation in (
        portio.Recv(free, bytearray(1)),
        portio.Send(free, b"x"),
        portio.Read(free, bytearray(1)),
        portio.Sync(free),
        portio.Accept(free),
    ):
        with pytest.raises(ValueError, match=r"(?i)handle|port"):
            driver.submit(operation)
        assert not operation.pending
    with pytest.raises(ValueError, match=r"(?i)handle|port"):
        driver.disassociate(free)
    driver.assert_quiet()


def test_k3_a_timer_may_have_a_free_key(driver: Driver) -> None:
    tick = portio.CompletionKey("tick")
    done = driver.run(portio.Timer(0, tick))
    assert done.key is tick
