"""O19 accepted keys: a connection comes as a handle of the port, and is one in every clause."""

from __future__ import annotations

import errno
import gc
import os
import socket
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import portio
from support.accepted import assert_at_end, connection, handle_of, keys_of
from support.drivers import Driver
from support.marks import needs_unix_sockets, wine_cannot_disassociate
from support.net import STREAMS, Net, recv_exactly
from support.system import LOCAL, WINDOWS, WINE
from support.taking import take
from support.threads import Background
from support.watch import LIMIT

MakePort = Callable[..., portio.Port]


# The connection


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o19_a_handle_of_the_same_port(driver: Driver, net: Net, family: str) -> None:
    listener = net.listener(family)
    accept = portio.AcceptKey(driver.associate(listener, "the listener's"))
    driver.submit(accept)
    peer = net.client(listener)
    done = driver.wait_for(accept)
    assert (done.error, done.nbytes, done.last) == (None, 0, True)
    assert done.key is accept.key
    key = done.result()
    assert type(key) is portio.CompletionKey
    assert accept.result() is key
    assert (key.port, key.closed, key.data) == (driver.port, False, None)
    receive = portio.Recv(key, bytearray(8))
    driver.submit(receive)
    driver.assert_quiet()
    peer.sendall(b"hello")
    done_receiving = driver.wait_for(receive)
    assert done_receiving.result() == 5
    assert done_receiving.key is key
    assert driver.result(portio.Send(key, b"welcome")) == 7
    assert recv_exactly(peer, 7) == b"welcome"
    driver.close_key(key)
    assert peer.recv(1) == b""


def test_o19_what_was_sent_before(driver: Driver, net: Net) -> None:
    """What is there when the connection becomes the port's is received like the rest."""
    listener = net.listener()
    listening = driver.associate(listener)
    for operation in ("Recv", "RecvFrom", "RecvMultishot"):
        peer = net.client(listener)
        peer.sendall(b"early")
        peer.shutdown(socket.SHUT_WR)
        key = driver.result(portio.AcceptKey(listening))
        if operation == "RecvMultishot":
            receive = portio.RecvMultishot(key, portio.BufferPool(driver.port, 2, 16))
            driver.submit(receive)
            pieces = [driver.wait_for(receive).result() for _ in range(2)]
            assert sorted(pieces) == [b"", b"early"]  # two threads may have them in hand
        elif operation == "RecvFrom":
            assert driver.result(portio.RecvFrom(key, bytearray(16)))[0] == 5
        else:
            assert driver.result(portio.Recv(key, bytearray(16))) == 5
            assert driver.result(portio.Recv(key, bytearray(16))) == 0
        driver.close_key(key)


@needs_unix_sockets
def test_o19_sockets_of_messages(driver: Driver, net: Net) -> None:
    listener = net.socket("unix", socket.SOCK_SEQPACKET)
    listener.bind(net.free_address("unix"))
    listener.listen()
    with socket.socket(listener.family, listener.type) as peer:
        peer.settimeout(LIMIT)
        peer.connect(listener.getsockname())
        key = driver.result(portio.AcceptKey(driver.associate(listener)))
        peer.send(b"one")
        peer.send(b"two")
        buffer = bytearray(16)
        for message in (b"one", b"two"):
            assert driver.result(portio.Recv(key, buffer)) == 3
            assert buffer[:3] == message
        # Of a stream the one after it would wait for its turn; here it is told apart.
        assert driver.result(portio.Send(key, [b"th", b"ree"])) == 5
        assert peer.recv(16) == b"three"
        assert (handle_of(key).type, handle_of(key).family) == (listener.type, listener.family)
        driver.close_key(key)
        assert peer.recv(1) == b""


@pytest.mark.parametrize("family", STREAMS)
def test_o19_its_handle_is_a_socket(driver: Driver, net: Net, family: str) -> None:
    key, peer = connection(driver, net, family)
    handle = handle_of(key)
    assert type(handle) is socket.socket
    assert key.handle is handle
    assert (handle.family, handle.type, handle.proto) == (peer.family, peer.type, peer.proto)
    assert handle.getpeername() == peer.getsockname()
    assert handle.gettimeout() is None
    assert not handle.get_inheritable()
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= 65536
    if family != "unix":
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert driver.result(portio.Send(key, b"as before")) == 9
    assert recv_exactly(peer, 9) == b"as before"
    driver.close_key(key)
    assert (key.handle, handle.fileno()) == (None, -1)
    assert peer.recv(1) == b""


@pytest.mark.skipif(WINDOWS, reason="a connection has no options of its listener there")
def test_o19_options_of_the_listener(driver: Driver, net: Net) -> None:
    listener = net.listener()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    net.client(listener)
    key = driver.result(portio.AcceptKey(driver.associate(listener)))
    assert handle_of(key).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    driver.close_key(key)


def test_o19_p9_two_threads_ask_for_the_handle(driver: Driver, net: Net) -> None:
    listening = driver.associate(listener := net.listener(LOCAL))
    start = threading.Barrier(3)
    for _ in range(20):
        peer = net.client(listener)
        key = driver.result(portio.AcceptKey(listening))

        def ask(key: portio.CompletionKey = key) -> object:
            start.wait(LIMIT)
            return key.handle

        asking = [Background(ask) for _ in range(2)]
        start.wait(LIMIT)
        mine = key.handle
        assert [thread.result() for thread in asking] == [mine, mine]
        assert handle_of(key) is mine
        driver.close_key(key)
        assert peer.recv(1) == b""


def test_o19_k2_its_data(driver: Driver, net: Net) -> None:
    key, peer = connection(driver, net)
    assert key.data is None
    key.data = data = ["the program's"]
    peer.sendall(b"x")
    done = driver.run(portio.Recv(key, bytearray(1)))
    assert done.key is key
    assert done.key.data is data
    driver.post(key, 3)
    assert [packet.key for packet in driver.take()] == [key]
    driver.close_key(key)


# K1, K4, K5, K6: what a handle of a port is


def test_o19_k1_it_belongs_to_the_port(driver: Driver, net: Net, backend: str) -> None:
    """Nobody can have it a second time: neither as it is, nor by its number, nor a duplicate."""
    key, peer = connection(driver, net)
    handle = handle_of(key)
    with handle.dup() as copy, portio.Port(backend=backend) as other:
        for again in (handle, handle.fileno(), copy, copy.fileno()):
            for associate in (driver.associate, other.associate):
                with pytest.raises(OSError, match="belongs to a port") as refused:
                    associate(again)
                assert refused.value.errno == errno.EBUSY
    peer.sendall(b"still the first")
    assert driver.result(portio.Recv(key, bytearray(32))) == 15
    driver.close_key(key)


@wine_cannot_disassociate
def test_o19_k4_the_handle_is_the_programs_again(driver: Driver, net: Net, backend: str) -> None:
    key, peer = connection(driver, net)
    handle = net.own(handle_of(key))
    receive = portio.Recv(key, bytearray(8))
    driver.submit(receive)
    with pytest.raises(OSError, match="pending") as refused:
        driver.disassociate(key)
    assert refused.value.errno == errno.EBUSY
    driver.cancel(receive)
    assert isinstance(driver.wait_for(receive).error, portio.OperationCancelledError)
    driver.disassociate(key)
    assert (key.port, key.handle) == (None, None)
    handle.sendall(b"by hand")
    assert recv_exactly(peer, 7) == b"by hand"
    with portio.Port(backend=backend) as other:
        again = other.associate(handle)
        other.submit(portio.Send(again, b"by another port"))
        assert take(other).result() == 15
        assert recv_exactly(peer, 15) == b"by another port"
        again.close()
    driver.close_key(key)  # of a free key


@wine_cannot_disassociate
def test_o19_k4_a_handle_that_nobody_has_asked_for(driver: Driver, net: Net) -> None:
    """Whoever wants it asks before."""
    key, peer = connection(driver, net)
    with pytest.warns(ResourceWarning, match="socket"):
        driver.disassociate(key)
        gc.collect()
    assert peer.recv(1) == b""


@pytest.mark.core
@pytest.mark.parametrize("asked", [False, True], ids=["bare", "asked"])
@pytest.mark.parametrize("family", STREAMS)
def test_o19_k5_close(driver: Driver, net: Net, family: str, asked: bool) -> None:
    key, peer = connection(driver, net, family)
    handle = handle_of(key) if asked else None
    receives = [portio.Recv(key, bytearray(8)) for _ in range(3)]
    driver.submit(*receives)
    driver.close_key(key)
    assert peer.recv(1) == b""  # at once: nobody has taken a completion yet
    for done in driver.wait_for_all(receives):
        assert isinstance(done.error, portio.OperationCancelledError)
        assert done.key is key
    assert (key.closed, key.port, key.handle) == (True, None, None)
    assert handle is None or handle.fileno() == -1
    driver.close_key(key)
    with pytest.raises(ValueError, match="closed"):
        driver.submit(portio.Send(key, b"x"))
    assert keys_of(driver.port) == []


def test_o19_k5_a_context_manager(driver: Driver, net: Net) -> None:
    key, peer = connection(driver, net)
    with key:
        assert driver.result(portio.Send(key, b"x")) == 1
    assert key.closed
    assert recv_exactly(peer, 8) == b"x"


def test_o19_k5_one_thread_closes_as_another_asks(driver: Driver, net: Net) -> None:
    """Either there is a handle, and it is closed, or there was none."""
    listening = driver.associate(listener := net.listener(LOCAL))
    start = threading.Barrier(2)
    for _ in range(20):
        peer = net.client(listener)
        key = driver.result(portio.AcceptKey(listening))

        def ask(key: portio.CompletionKey = key) -> Any:
            start.wait(LIMIT)
            return key.handle

        asking = Background(ask)
        start.wait(LIMIT)
        driver.close_key(key)
        handle = asking.result()
        assert handle is None or handle.fileno() == -1
        assert peer.recv(1) == b""


@pytest.mark.parametrize("asked", [False, True], ids=["bare", "asked"])
def test_o19_a_key_that_is_dropped_closes_its_connection(
    driver: Driver, net: Net, asked: bool
) -> None:
    """Nobody else has it; as of every socket that is dropped there is a warning."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        key, peer = connection(driver, net)
        if asked:
            handle_of(key)
        gc.collect()
        assert [each for each in warned if each.category is ResourceWarning] == []
        del key
        gc.collect()
    assert [each.category for each in warned] == [ResourceWarning]
    assert "socket" in str(warned[0].message)
    assert peer.recv(1) == b""
    assert keys_of(driver.port) == []


@pytest.mark.parametrize("asked", [False, True], ids=["bare", "asked"])
@pytest.mark.parametrize("pending", [False, True], ids=["idle", "pending"])
def test_o19_k6_closed_behind_the_ports_back(
    driver: Driver, net: Net, asked: bool, pending: bool
) -> None:
    """The number's next owner is a connection of the same port; the old key cannot reach it."""
    listening = driver.associate(listener := net.listener(LOCAL))
    old_peer = net.client(listener)
    old_key = driver.result(portio.AcceptKey(listening))
    number = old_key._descriptor  # which a program has from `handle`, or by accident
    handle = handle_of(old_key) if asked else None
    old = portio.Recv(old_key, bytearray(8))
    if pending:
        driver.submit(old)
    peers = [net.client(listener) for _ in range(50 if WINDOWS else 1)]  # before: they have numbers
    socket.close(number)
    for peer in peers:  # noqa: B007 (the last is meant)
        key = driver.result(portio.AcceptKey(listening))
        if key._descriptor == number:
            break
        driver.close_key(key)
    else:
        assert WINDOWS
        pytest.skip("the number did not come back")
    receive = portio.Recv(key, bytearray(8))
    driver.submit(receive)
    peer.sendall(b"new life")
    done = driver.wait_for(receive)
    assert done.result() == 8
    assert done.key is key
    if pending:
        former = driver.wait_for(old)
        assert former.key is old_key
        assert former.error is not None or former.nbytes == 0
        assert old.buffer == bytes(8)
    assert old_key.closed
    if handle is not None:
        handle.close()  # it has no number any more
    driver.close_key(old_key)
    del handle, old_key, old, done
    gc.collect()
    assert driver.result(portio.Send(key, b"open")) == 4
    assert recv_exactly(peer, 4) == b"open"
    driver.close_key(key)
    assert peer.recv(1) == b""
    old_peer.close()


@pytest.mark.skipif(WINDOWS, reason="nothing tells there what a number means now")
@pytest.mark.parametrize("how", ["close", "drop", "ask", "submit", "associate"])
def test_o19_k6_the_number_is_a_strangers(driver: Driver, net: Net, how: str) -> None:
    """It is not the key's to close."""
    key, _ = connection(driver, net, LOCAL)
    number = key._descriptor
    theirs, friend = socket.socketpair()
    os.dup2(theirs.fileno(), number)
    theirs.close()
    with socket.socket(fileno=number) as stranger, friend:
        if how == "close":
            driver.close_key(key)
        elif how == "drop":
            del key
            gc.collect()
        elif how == "ask":
            for _ in range(2):
                with pytest.raises(OSError, match="closed behind") as refused:
                    _ = key.handle
                assert refused.value.errno == errno.EBADF
            driver.close_key(key)
        elif how == "submit":  # epoll and io_uring see it at different times
            receive = portio.Recv(key, bytearray(8))
            driver.submit(receive)
            driver.close_key(key)
            done = driver.wait_for(receive)
            assert done.error is not None
        else:
            other = driver.associate(stranger)
            assert key.closed
            driver.close_key(key)
            assert driver.result(portio.Send(other, b"x")) == 1
            assert friend.recv(1) == b"x"
            driver.disassociate(other)
        stranger.send(b"open")
        assert friend.recv(4) == b"open"


@pytest.mark.skipif(WINDOWS, reason="the number that comes next is the system's to choose")
@pytest.mark.parametrize("how", ["close", "drop", "ask"])
def test_o19_k6_the_number_is_nobodys(driver: Driver, net: Net, how: str) -> None:
    key, peer = connection(driver, net, LOCAL)
    os.close(key._descriptor)
    assert peer.recv(1) == b""
    if how == "ask":
        for _ in range(2):
            with pytest.raises(OSError, match="closed behind"):
                _ = key.handle
    if how == "drop":
        del key
        gc.collect()
    else:
        driver.close_key(key)
        assert key.closed


def test_o19_k6_numbers_come_and_go(driver: Driver, net: Net) -> None:
    """A server's everyday life: the number of the last client is the next client's."""
    listening = driver.associate(listener := net.listener())
    accept = portio.AcceptKey(listening)
    numbers = set()
    for life in range(10 if WINE else 40):
        peer = net.client(listener)
        key = driver.result(accept)
        key.data = life
        numbers.add(key._descriptor)
        receives = [portio.Recv(key, bytearray(4)), portio.Recv(key, bytearray(4))]
        driver.submit(*receives)
        peer.sendall(b"%04d" % life)
        done = driver.wait_for(receives[0])
        assert done.result() == 4
        assert receives[0].buffer == b"%04d" % life
        driver.close_key(key)
        assert isinstance(driver.wait_for(receives[1]).error, portio.OperationCancelledError)
        peer.close()
    assert WINDOWS or len(numbers) < 40, "the test is meant to see numbers again"


# P7: the end of the port


def test_o19_p7_accepted_but_not_taken_is_closed(port: portio.Port, net: Net) -> None:
    listener = net.listener()
    key = port.associate(listener)
    port.submit(*(portio.AcceptKey(key) for _ in range(3)), portio.AcceptKey(key, multishot=True))
    clients = [net.client(listener) for _ in range(6)]
    port.submit(timer := portio.Timer(0))
    while (done := take(port)).operation is not timer:
        done.result().close()
    port.close()
    listener.close()
    for client in clients:
        assert_at_end(client)
    assert keys_of(port) == [key]


@pytest.mark.parametrize("asked", [False, True], ids=["bare", "asked"])
def test_o19_p7_the_key_of_a_closed_port(driver: Driver, net: Net, asked: bool) -> None:
    """The connection is open until its key is closed."""
    key, peer = connection(driver, net)
    receive = portio.Recv(key, bytearray(8))
    driver.submit(receive)
    driver.close()
    if asked:
        handle_of(key).sendall(b"x")
        assert peer.recv(1) == b"x"
    peer.settimeout(0)
    with pytest.raises(BlockingIOError):
        peer.recv(1)
    peer.settimeout(LIMIT)
    key.close()
    assert key.closed
    assert peer.recv(1) == b""


def test_o19_p7_a_key_of_a_closed_port_that_is_dropped(driver: Driver, net: Net) -> None:
    key, peer = connection(driver, net)
    driver.close()
    with pytest.warns(ResourceWarning, match="socket"):
        del key
        gc.collect()
    assert peer.recv(1) == b""


def test_o19_p7_k5_closed_in_another_thread(make_port: MakePort, net: Net) -> None:
    """A thread-bound port that is closed, and its owner's end, are in nobody's way."""
    listener = net.listener()
    peer = net.client(listener)

    def own() -> tuple[portio.Port, portio.CompletionKey]:
        port = make_port(thread_bound=True)
        port.submit(accept := portio.AcceptKey(port.associate(listener)))
        assert take(port).operation is accept
        return port, accept.result()

    port, key = Background(own).result()
    with pytest.raises(RuntimeError, match="thread"):
        key.close()
    assert not key.closed
    port.close()
    key.close()
    assert peer.recv(1) == b""
