"""K4 disassociate, K5 close: how a handle and its key part."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

import portio
from support import handles
from support.drivers import Driver
from support.marks import wine_cannot_disassociate
from support.net import STREAMS, Net, fill, recv_exactly
from support.system import LOCAL, WINDOWS, WINE
from support.threads import Background
from support.watch import LIMIT, wait_until_blocked

# K4 disassociate


@wine_cannot_disassociate
@pytest.mark.core
def test_k4_the_handle_is_free_for_another_port(driver: Driver, net: Net, backend: str) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    peer.sendall(b"one")
    assert driver.result(portio.Recv(key, bytearray(8))) == 3
    driver.disassociate(key)
    with portio.Port(backend=backend) as other:
        receive = portio.Recv(other.associate(ours), bytearray(8))
        other.submit(receive)
        peer.sendall(b"three")
        done = other.get(LIMIT)
        assert done is not None
        assert done.result() == 5
    # and back again
    assert driver.result(portio.Send(driver.associate(ours), b"back")) == 4
    assert peer.recv(8) == b"back"


@wine_cannot_disassociate
def test_k4_the_key_is_dead_and_the_handle_is_open(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    driver.disassociate(key)
    operation = portio.Recv(key, bytearray(1))
    with pytest.raises(ValueError, match=r"(?i)key|handle|port"):
        driver.submit(operation)
    assert not operation.pending
    with pytest.raises(ValueError, match=r"(?i)key|handle|port"):
        driver.disassociate(key)
    driver.close_key(key)  # nothing is left for it to close
    assert ours.fileno() >= 0
    ours.sendall(b"open")
    assert peer.recv(4) == b"open"


@wine_cannot_disassociate
@pytest.mark.core
def test_k4_not_while_something_is_pending(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    receive = portio.Recv(key, bytearray(8))
    driver.submit(receive)
    with pytest.raises(OSError, match=r"(?i)pending|busy") as caught:
        driver.disassociate(key)
    assert caught.value.errno == 16  # EBUSY
    peer.sendall(b"kept")
    assert driver.wait_for(receive).result() == 4
    driver.disassociate(key)


@wine_cannot_disassociate
@pytest.mark.parametrize("non_blocking", [False, True])
def test_k4_the_socket_is_as_it_was(driver: Driver, net: Net, non_blocking: bool) -> None:
    """A blocking socket blocks again when it comes back, a non-blocking one does not."""
    ours, peer = net.pair()
    ours.setblocking(not non_blocking)
    key = driver.associate(ours)
    peer.sendall(b"x")
    assert driver.result(portio.Recv(key, bytearray(1))) == 1
    driver.disassociate(key)
    assert WINDOWS or os.get_blocking(ours.fileno()) is not non_blocking
    assert ours.getblocking() is not non_blocking
    if non_blocking:
        with pytest.raises(BlockingIOError):
            ours.recv(1)
    else:
        with Background(ours.recv, 4) as receiver:
            wait_until_blocked(receiver)
            peer.sendall(b"late")
            assert receiver.result() == b"late"


def test_k4_a_key_of_another_port(driver: Driver, net: Net, backend: str) -> None:
    ours, peer = net.pair()
    with portio.Port(backend=backend) as other:
        key = other.associate(ours)
        with pytest.raises(ValueError, match="port"):
            driver.disassociate(key)
        other.submit(portio.Send(key, b"still there"))
        assert other.get(LIMIT) is not None
        assert peer.recv(16) == b"still there"


@wine_cannot_disassociate
def test_k4_over_and_over(driver: Driver, net: Net) -> None:
    """Nothing of an earlier association shows in a later one."""
    ours, peer = net.pair()
    for number in range(50):
        key = driver.associate(ours, number)
        driver.submit(receive := portio.Recv(key, bytearray(4)))
        if number % 2:
            peer.sendall(b"data")
            assert driver.wait_for(receive).result() == 4
        else:
            driver.cancel(receive)
            done = driver.wait_for(receive)
            assert isinstance(done.error, portio.OperationCancelledError)
        assert driver.result(portio.Send(key, b"%d" % number)) == len(str(number))
        assert peer.recv(4) == b"%d" % number
        driver.disassociate(key)


@wine_cannot_disassociate
def test_k4_files_and_pipes(driver: Driver, tmp_path: Path) -> None:
    reader, writer = portio.pipe()
    with portio.open(tmp_path / "file", "w+") as file, reader, writer:
        for handle in (file, reader, writer):
            driver.disassociate(driver.associate(handle))
            driver.associate(handle)


@pytest.mark.skipif(not WINE, reason="this system can disassociate: see the others")
def test_k4_where_the_system_cannot_it_says_so(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    with pytest.raises(portio.NotSupportedError, match="disassociat"):
        driver.disassociate(key)
    assert key.handle is ours
    assert driver.result(portio.Send(key, b"as before")) == 9
    assert peer.recv(16) == b"as before"


# K5 close


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_k5_pending_operations_complete_and_the_peer_sees_the_end(
    driver: Driver, net: Net, family: str
) -> None:
    ours, peer = net.pair(family)
    key = driver.associate(ours)
    receives = [portio.Recv(key, bytearray(8)) for _ in range(5)]
    driver.submit(*receives)
    driver.close_key(key)
    # At once: nobody has taken a completion yet, and with one thread nobody asks.
    assert peer.recv(1) == b""
    for done in driver.wait_for_all(receives):
        assert isinstance(done.error, portio.OperationCancelledError)
        assert done.key is key
        assert done.nbytes == 0
    assert key.closed
    assert ours.fileno() == -1 or not handles.is_open(ours.fileno())


def test_k5_the_socket_object_is_closed_with_it(driver: Driver, net: Net) -> None:
    """Otherwise its collection would close a number that is somebody else's by then."""
    ours, _ = net.pair()
    key = driver.associate(ours)
    driver.close_key(key)
    assert ours.fileno() == -1


def test_k5_a_file_and_a_pipe_end_are_closed_with_it(driver: Driver, tmp_path: Path) -> None:
    reader, writer = portio.pipe()
    file = portio.open(tmp_path / "file", "w+")
    for handle in (file, reader, writer):
        assert not handle.closed
        driver.close_key(driver.associate(handle))
        assert handle.closed


def test_k5_a_raw_descriptor_is_closed(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    fd = ours.detach()
    driver.close_key(driver.associate(fd))
    assert peer.recv(1) == b""


def test_k5_every_kind_of_pending_operation_completes(driver: Driver, net: Net) -> None:
    full, _ = net.small_pair()
    fill(full)
    listener = net.listener()
    connecting = net.socket()
    datagram = net.datagram()
    reader, writer = portio.pipe()
    idle_reader, idle_writer = portio.pipe()
    handles.fill_pipe(writer)
    with reader, idle_writer:
        operations: list[portio.Operation[Any]] = [
            portio.Send(driver.associate(full), bytes(100_000)),
            portio.Accept(driver.associate(listener)),
            portio.Connect(driver.associate(connecting), net.full_listener().getsockname()),
            portio.RecvFrom(driver.associate(datagram), bytearray(8)),
            portio.Write(driver.associate(writer), bytes(8)),
            portio.Read(driver.associate(idle_reader), bytearray(8)),
        ]
        driver.submit(*operations)
        for operation in operations:
            driver.close_key(operation.key)
        for done in driver.wait_for_all(operations):
            assert isinstance(done.error, portio.OperationCancelledError), done


def test_k5_close_is_idempotent_and_a_context_manager(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    with key as entered:
        assert entered is key
        assert driver.result(portio.Send(key, b"x")) == 1
    assert key.closed
    driver.close_key(key)
    assert peer.recv(8) == b"x"
    assert peer.recv(8) == b""


def test_k5_nothing_can_be_started_on_a_closed_key(driver: Driver, net: Net) -> None:
    ours, _ = net.pair()
    key = driver.associate(ours)
    driver.close_key(key)
    operation = portio.Send(key, b"x")
    with pytest.raises(ValueError, match="closed"):
        driver.submit(operation)
    assert not operation.pending
    driver.assert_quiet()


def test_k5_what_was_handed_over_still_arrives(driver: Driver, net: Net) -> None:
    """Closing cancels what is pending; it does not take back what was sent."""
    ours, peer = net.pair()
    key = driver.associate(ours)
    assert driver.result(portio.Send(key, b"all of this")) == 11
    driver.close_key(key)
    assert recv_exactly(peer, 64) == b"all of this"


def test_k5_unqueued_operations_complete_too(driver: Driver, net: Net) -> None:
    ours, _ = net.pair()
    key = driver.associate(ours)
    receive = portio.Recv(key, bytearray(8))
    driver.submit(receive, queued=False)
    driver.close_key(key)
    assert isinstance(driver.wait(receive).error, portio.OperationCancelledError)


def test_k5_while_data_streams_in(driver: Driver, net: Net) -> None:
    """Closing in full flow: each receive completes once, with data or cancelled."""
    for _ in range(20):
        ours, peer = net.pair(LOCAL)
        key = driver.associate(ours)
        receives = [portio.Recv(key, bytearray(64)) for _ in range(16)]
        with Background(_send_until_closed, peer):
            driver.submit(*receives)
            driver.close_key(key)
            outcomes = [type(done.error) for done in driver.wait_for_all(receives)]
        assert set(outcomes) <= {type(None), portio.OperationCancelledError}


def _send_until_closed(peer: socket.socket) -> None:
    try:
        while True:
            peer.sendall(bytes(64))
    except OSError:
        pass


def test_k5_a_free_key_and_one_of_a_closed_port(driver: Driver, net: Net) -> None:
    portio.CompletionKey("free").close()
    ours, _ = net.pair()
    key = driver.associate(ours)
    driver.close()
    try:
        driver.close_key(key)
    except portio.PortClosedError:
        assert ours.fileno() >= 0
