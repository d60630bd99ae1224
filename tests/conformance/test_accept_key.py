"""O19 accepted keys: the operation that gives them, and ports that are used in every way."""

from __future__ import annotations

import errno
import gc
import select
import socket
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portio
from support import handles
from support.accepted import connection, handle_of, keys_of
from support.children import run_script
from support.drivers import Driver
from support.marks import needs_fork
from support.net import STREAMS, Net, recv_exactly
from support.system import LOCAL, WINDOWS, WINE
from support.taking import take
from support.threads import Background
from support.watch import LIMIT

MakePort = Callable[..., portio.Port]


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
