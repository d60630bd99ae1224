"""O19 accepted keys: a connection comes as a handle of the port, and is one in every clause."""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portio
from portio.registry import registry
from support import handles
from support.children import run_script
from support.drivers import Driver
from support.marks import needs_fork, needs_unix_sockets, wine_cannot_disassociate
from support.net import STREAMS, Net, recv_exactly
from support.system import LOCAL, WINDOWS, WINE
from support.threads import Background
from support.watch import LIMIT

MakePort = Callable[..., portio.Port]
Connection = tuple[portio.CompletionKey, socket.socket]


def connection(driver: Driver, net: Net, family: str = "inet") -> Connection:
    """An accepted key, which nobody but the caller has, and its peer."""
    listener = net.listener(family)
    peer = net.client(listener)
    listening = driver.associate(listener)
    key = driver.result(portio.AcceptKey(listening))
    driver.close_key(listening)
    return key, peer


def take(port: portio.Port) -> portio.Completion[Any]:
    done = port.get(LIMIT)
    assert done is not None
    return done


def handle_of(key: portio.CompletionKey) -> socket.socket:
    handle = key.handle
    assert isinstance(handle, socket.socket)
    return handle


def assert_at_end(peer: socket.socket) -> None:
    """The connection has ended, in one way or the other."""
    try:
        assert peer.recv(1) == b""
    except ConnectionResetError:
        pass


def keys_of(port: portio.Port) -> list[portio.CompletionKey]:
    """Those that the registry has."""
    keys = [entry() for entry in [*registry.entries.values()]]
    return [key for key in keys if key is not None and key.port is port]


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


@pytest.mark.core
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


@pytest.mark.core
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


@pytest.mark.core
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


@pytest.mark.core
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
@pytest.mark.core
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


@pytest.mark.core
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


@pytest.mark.core
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


@pytest.mark.core
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


@pytest.mark.core
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


# The operation


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o19_o16_an_accept_that_goes_on(driver: Driver, net: Net, family: str) -> None:
    listener = net.listener(family)
    accept = portio.AcceptKey(driver.associate(listener, "data"), multishot=True)
    driver.submit(accept)
    keys = []
    for _ in range(5):
        client = net.client(listener)
        done = driver.wait_for(accept)
        assert (done.error, done.last, accept.pending) == (None, False, True)
        assert done.key is accept.key
        key = done.result()
        assert (key.port, key.data) == (driver.port, None)
        assert driver.result(portio.Send(key, b"welcome")) == 7
        assert recv_exactly(client, 7) == b"welcome"
        keys.append(key)
    driver.assert_quiet()
    driver.cancel(accept)
    done = driver.wait_for(accept)
    assert done.last
    assert isinstance(done.error, portio.OperationCancelledError)
    assert len({key._descriptor for key in keys}) == 5
    for key in keys:
        driver.close_key(key)


@pytest.mark.core
def test_o19_o16_in_order_and_no_more_than_one_ahead(port: portio.Port, net: Net) -> None:
    listener = net.listener()
    names = [net.client(listener).getsockname() for _ in range(20)]
    accept = portio.AcceptKey(port.associate(listener), multishot=True)
    port.submit(accept)
    peers = []

    def enter(key: portio.CompletionKey) -> None:
        peers.append(handle_of(key).getpeername())
        key.close()

    for _ in range(5):
        enter(take(port).result())
    accept.cancel()
    while not (done := take(port)).last:
        enter(done.result())
    assert isinstance(done.error, portio.OperationCancelledError)
    assert peers == names[: len(peers)]
    assert len(peers) <= 6
    assert port.get(0) is None


def test_o19_o16_the_listener_is_closed(driver: Driver, net: Net) -> None:
    """What it has accepted lives on."""
    listener = net.listener()
    client = net.client(listener)
    listening = driver.associate(listener)
    accept = portio.AcceptKey(listening, multishot=True)
    driver.submit(accept)
    key = driver.wait_for(accept).result()
    driver.close_key(listening)
    done = driver.wait_for(accept)
    assert done.last
    assert isinstance(done.error, portio.OperationCancelledError)
    client.sendall(b"x")
    assert driver.result(portio.Recv(key, bytearray(1))) == 1
    driver.close_key(key)


def test_o19_taken_after_the_listener_was_closed(port: portio.Port, net: Net) -> None:
    """The connection was in the port by then: it is delivered, or it has not been accepted."""
    for _ in range(5):
        listener = net.listener()
        client = net.client(listener)
        listening = port.associate(listener)
        port.submit(accept := portio.AcceptKey(listening), timer := portio.Timer(0))
        listening.close()
        for done in (take(port), take(port)):
            if done.operation is timer:
                continue
            if done.error is not None:
                assert isinstance(done.error, portio.OperationCancelledError)
                continue
            key = accept.result()
            port.submit(portio.Send(key, b"x"))
            assert take(port).result() == 1
            assert client.recv(1) == b"x"
            assert handle_of(key).getpeername() == client.getsockname()
            key.close()
    assert port.get(0) is None


@pytest.mark.core
@pytest.mark.parametrize("multishot", [False, True])
def test_o19_o10_errors(driver: Driver, net: Net, multishot: bool) -> None:
    deaf = net.socket()
    deaf.bind(("127.0.0.1", 0))
    accept = portio.AcceptKey(driver.associate(deaf), multishot=multishot)
    for _ in range(2):
        done = driver.run(accept)
        assert done.last
        assert done.error is not None
        assert done.error.errno == errno.EINVAL
        assert "portio.AcceptKey" in str(done.error)
        with pytest.raises(OSError, match=r"portio\.AcceptKey"):
            done.result()
        assert not accept.pending
    driver.assert_quiet()


def test_o19_o10_a_connection_does_not_listen(driver: Driver, net: Net) -> None:
    """What the system says of it comes at once, before anything else happens there."""
    key, peer = connection(driver, net)
    for kind in (portio.Accept, portio.AcceptKey):
        done = driver.run(kind(key))
        assert done.error is not None
        assert done.error.errno == errno.EINVAL
    peer.sendall(b"x")
    assert driver.result(portio.Recv(key, bytearray(1))) == 1
    driver.close_key(key)


@pytest.mark.core
def test_o19_o6_cancel(driver: Driver, net: Net) -> None:
    accept = portio.AcceptKey(driver.associate(net.listener()))
    for _ in range(3):
        driver.submit(accept)
        driver.cancel(accept)
        assert isinstance(driver.wait_for(accept).error, portio.OperationCancelledError)
        with pytest.raises(portio.OperationCancelledError):
            accept.result()


def test_o19_o6_a_client_comes_as_it_is_cancelled(driver: Driver, net: Net) -> None:
    """Either there is a key, or the client waits for the next accept: none is lost."""
    listener = net.listener(LOCAL)
    accept = portio.AcceptKey(driver.associate(listener))
    start = threading.Barrier(2)
    rounds, served = 5 if WINE else 30, 0

    def connect() -> None:
        for _ in range(rounds):
            start.wait(LIMIT)
            net.client(listener)

    with Background(connect):
        for _ in range(rounds):
            driver.submit(accept)
            start.wait(LIMIT)
            driver.cancel(accept)
            done = driver.wait_for(accept)
            if done.error is None:
                driver.close_key(done.result())
                served += 1
    while served < rounds:
        driver.close_key(driver.result(accept))
        served += 1
    driver.submit(accept)
    driver.assert_quiet()
    driver.cancel(accept)
    assert isinstance(driver.wait_for(accept).error, portio.OperationCancelledError)


@pytest.mark.core
def test_o19_o13_unqueued(driver: Driver, net: Net) -> None:
    listener = net.listener()
    accept = portio.AcceptKey(driver.associate(listener))
    for early in (False, True):
        peer = net.client(listener) if early else None
        driver.submit(accept, queued=False)
        peer = peer or net.client(listener)
        done = driver.wait(accept)
        key = done.result()
        assert accept.result() is key
        assert key.port is driver.port
        peer.sendall(b"x")
        receive = portio.Recv(key, bytearray(1))
        driver.submit(receive, queued=False)
        assert driver.wait(receive).result() == 1
        driver.close_key(key)
    driver.assert_quiet()


def test_o19_o15_quiet(driver: Driver, net: Net) -> None:
    """A success has no packet, but a key."""
    listener = net.listener()
    accept = portio.AcceptKey(driver.associate(listener))
    peer = net.client(listener)
    driver.submit_quiet(accept)
    while accept.pending:
        driver.assert_quiet()
    key = accept.result()
    assert driver.result(portio.Send(key, b"x")) == 1
    assert peer.recv(1) == b"x"
    driver.close_key(key)
    driver.submit_quiet(accept)
    driver.cancel(accept)
    assert isinstance(driver.wait_for(accept).error, portio.OperationCancelledError)


@pytest.mark.core
def test_o19_o5_again_and_again(driver: Driver, net: Net) -> None:
    listener = net.listener()
    accept = portio.AcceptKey(driver.associate(listener))
    driver.submit(accept)
    with pytest.raises(RuntimeError, match="pending"):
        driver.submit(accept)
    keys = []
    for _ in range(5):
        net.client(listener)
        keys.append(driver.wait_for(accept).result())
        driver.submit(accept)
    driver.cancel(accept)
    driver.wait_for(accept)
    assert len(set(keys)) == 5
    assert {key.port for key in keys} == {driver.port}
    for key in keys:
        driver.close_key(key)


def test_o19_many_in_one_call(driver: Driver, net: Net) -> None:
    listener = net.listener()
    listening = driver.associate(listener)
    both: list[portio.Operation[Any]] = [portio.Accept(listening), portio.AcceptKey(listening)]
    driver.submit(*both)
    peers = [net.client(listener) for _ in both]
    accepted, key = (done.result() for done in driver.wait_for_all(both))
    accepted.close()
    assert isinstance(key, portio.CompletionKey)
    driver.close_key(key)
    assert [peer.recv(1) for peer in peers] == [b"", b""]


def test_o19_a_class_of_the_programs(driver: Driver, net: Net) -> None:
    class Welcome(portio.AcceptKey):
        def __init__(self, key: portio.CompletionKey, text: bytes) -> None:
            super().__init__(key)
            self.text = text

    listener = net.listener()
    peer = net.client(listener)
    done = driver.run(Welcome(driver.associate(listener), b"hello"))
    match done.operation:
        case Welcome(text=text):
            key = done.result()
            assert driver.result(portio.Send(key, text)) == 5
            driver.close_key(key)
        case _:
            pytest.fail("it is of that class")
    assert recv_exactly(peer, 8) == b"hello"


def test_o19_o2_misuse(driver: Driver, net: Net, tmp_path: Path, backend: str) -> None:
    listener = net.listener()
    listening = driver.associate(listener)
    wrong: Any
    for wrong in (None, "text", 3, listener):
        with pytest.raises(TypeError, match=r"portio\.AcceptKey"):
            driver.submit(portio.AcceptKey(wrong))
    with pytest.raises(ValueError, match=r"portio\.AcceptKey.*no handle"):
        driver.submit(portio.AcceptKey(portio.CompletionKey("free")))
    with portio.open(tmp_path / "file", "w+") as file:
        with pytest.raises(TypeError, match=r"portio\.AcceptKey needs a socket"):
            driver.submit(portio.AcceptKey(driver.associate(file)))
        driver.port  # noqa: B018 (it has the file until the end of the test)
    with portio.Port(backend=backend) as other:
        theirs = other.associate(net.listener())
        with pytest.raises(ValueError, match="another port"):
            driver.submit(portio.AcceptKey(theirs))
    accept = portio.AcceptKey(listening, multishot=True)
    with pytest.raises(ValueError, match=r"portio\.AcceptKey.*multishot"):
        driver.submit(accept, queued=False)
    with pytest.raises(ValueError, match=r"portio\.AcceptKey.*multishot"):
        driver.call(driver.port.submit, accept, quiet=True)
    assert not accept.pending
    with pytest.raises(RuntimeError, match="not completed"):
        accept.result()
    driver.close_key(listening)
    with pytest.raises(ValueError, match="closed"):
        driver.submit(accept)
    driver.assert_quiet()


# How a port is used


@pytest.mark.skipif(WINDOWS, reason="a port has no descriptor on Windows")
def test_o19_p11_the_descriptor_tells_of_what_was_there(port: portio.Port, net: Net) -> None:
    listener = net.listener()
    listening = port.associate(listener)
    descriptor = port.fileno()

    def next_packet() -> portio.Completion[Any]:
        while (done := port.get(0)) is None:
            readable, _, _ = select.select([descriptor], [], [], LIMIT)
            assert readable, "a wake-up was missed"
        return done

    peer = net.client(listener)
    peer.sendall(b"early")
    port.submit(portio.AcceptKey(listening))
    key = next_packet().result()
    for data in (b"early", b"later"):
        receive = portio.Recv(key, bytearray(8))
        port.submit(receive)
        assert next_packet().result() == 5
        assert receive.buffer[:5] == data
        if data == b"early":
            port.submit(portio.Timer(0))
            next_packet()
            peer.sendall(b"later")
    key.close()


@pytest.mark.skipif(WINE, reason="its server may need a moment for what the peer has sent")
def test_o19_p5_a_look_is_enough(port: portio.Port, net: Net) -> None:
    """What was there before the receive is found by one look, without a wait."""
    listener = net.listener(LOCAL)
    listening = port.associate(listener)
    for queued in (True, False):
        peer = net.client(listener)
        peer.sendall(b"early")
        port.submit(accept := portio.AcceptKey(listening))
        assert take(port).operation is accept
        key = accept.result()
        receive = portio.Recv(key, bytearray(8))
        port.submit(receive, queued=queued)
        done = port.get(0) if queued else receive.wait(0)
        assert done is not None
        assert done.result() == 5
        key.close()


def test_o19_lazily(make_port: MakePort, net: Net) -> None:
    port = make_port(thread_bound=True, lazy_submit=True)
    listener = net.listener()
    accept = portio.AcceptKey(port.associate(listener))
    for early in (False, True):
        peer = net.client(listener)
        if early:
            peer.sendall(b"hello")
        port.submit(accept)
        key = take(port).result()
        port.submit(portio.Recv(key, bytearray(8)))
        if not early:
            port.flush()
            peer.sendall(b"hello")
        assert take(port).result() == 5
        key.close()


def test_o19_p9_many_workers(make_port: MakePort, net: Net) -> None:
    """Whoever takes the connection goes on with it; all are echoed to, none is left."""
    port = make_port(4)
    listener = net.listener(LOCAL)
    rounds = 20 if WINE else 100
    stop = portio.CompletionKey("stop")

    def serve() -> None:
        for done in port:
            match done.operation:
                case portio.AcceptKey():
                    if not done.last:
                        port.submit(portio.Recv(done.result(), bytearray(8)))
                case portio.Recv() as receive if done.nbytes:
                    port.submit(portio.Send(receive.key, receive.buffer[: done.nbytes]))
                    port.submit(receive)
                case portio.Recv() as receive:
                    receive.key.close()
                case None if done.key is stop:
                    port.post(stop)
                    return

    listening = port.associate(listener)
    accepts = [portio.AcceptKey(listening, multishot=True) for _ in range(3)]
    port.submit(*accepts)
    workers = [Background(serve) for _ in range(3)]
    for number in range(rounds):
        with socket.socket(listener.family) as client:
            client.settimeout(LIMIT)
            client.connect(listener.getsockname())
            client.sendall(b"%08d" % number)
            assert recv_exactly(client, 8) == b"%08d" % number
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
    for accept in accepts:
        accept.cancel()
    port.post(stop)
    for worker in workers:
        worker.result()
    assert keys_of(port) == [listening]


FORK = """
    import gc, os, socket, sys, warnings
    import portio
    warnings.simplefilter("ignore")
    backend, bound = sys.argv[1], sys.argv[2] == "thread_bound"
    port = portio.Port(backend=backend, thread_bound=bound)
    listener = socket.create_server(("127.0.0.1", 0))
    accept = portio.AcceptKey(port.associate(listener))
    keys, peers = [], []
    for _ in range(4):
        peers.append(socket.create_connection(listener.getsockname(), timeout=30))
        port.submit(accept)
        keys.append(port.get(30).result())
    asked = keys[1].handle
    receive = portio.Recv(keys[2], bytearray(8))
    port.submit(receive)
    port.submit(accept)     # to be inherited as a pending one
    another = socket.create_server(("127.0.0.1", 0))

    child = os.fork()
    if child == 0:
        try:
            for key in keys:
                try:
                    key.close()
                except RuntimeError as error:
                    assert "fork" in str(error), error
                else:
                    raise AssertionError("it went through")
                assert not key.closed
            assert keys[3].handle.getpeername() == peers[3].getsockname()
            with keys[0]:
                pass
            del key, keys[:], asked, receive, accept
            gc.collect()
            with portio.Port(backend=backend) as mine:
                own = portio.AcceptKey(mine.associate(another))
                mine.submit(own)
                with socket.create_connection(another.getsockname()) as client:
                    with mine.get(30).result() as key:
                        mine.submit(portio.Send(key, b"child"))
                        assert mine.get(30).result() == 5
                    assert client.recv(8) == b"child"
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    for number, (key, peer) in enumerate(zip(keys, peers)):
        peer.sendall(b"x")
        if number != 2:
            port.submit(portio.Recv(key, bytearray(8)))
        assert port.get(30).result() == 1
        assert isinstance(key.handle, socket.socket)
        key.close()
        assert peer.recv(1) == b""
    port.close()
    print("parent works on")
"""


@needs_fork
@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_o19_p10_a_child_does_no_harm(backend: str, kind: str) -> None:
    assert run_script(FORK, backend, kind) == "parent works on\n"


def test_o19_nothing_is_left_behind(driver: Driver, net: Net) -> None:
    """Neither a descriptor nor an entry, however a connection has ended."""
    listening = driver.associate(listener := net.listener(LOCAL))
    before = set(handles.open_handles())
    accept = portio.AcceptKey(listening)
    for number in range(8):
        with socket.socket(listener.family) as peer:
            peer.settimeout(LIMIT)
            peer.connect(listener.getsockname())
            key = driver.result(accept)
            if number % 2:
                handle_of(key)
            if number % 4 < 2:
                driver.close_key(key)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                del key
                driver.submit(accept)
                driver.cancel(accept)
                driver.wait_for(accept)  # the operation has no key as its result any more
                gc.collect()
            assert peer.recv(1) == b""
    assert keys_of(driver.port) == [listening]
    assert WINDOWS or set(handles.open_handles()) <= before
