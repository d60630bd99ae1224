"""O16 multishot: one submission, many completions, of which one is the last."""

from __future__ import annotations

import errno
import os
import select
import socket
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest

import portio
from support.children import run_script
from support.drivers import Driver
from support.marks import needs_chosen_numbers, needs_resource_limits
from support.net import STREAMS, Net
from support.system import LOCAL, WINDOWS
from support.taking import take
from support.threads import Background
from support.watch import LIMIT

MakePort = Callable[..., portio.Port]


def ended(done: portio.Completion[Any], operation: portio.Operation[Any]) -> bool:
    """Is it the last completion, which only an operation that was cancelled has given?"""
    assert done.operation is operation
    if not done.last:
        assert done.error is None
        return False
    assert type(done.error) is portio.OperationCancelledError, done
    assert not operation.pending
    return True


def waiting_clients(listener: socket.socket) -> int:
    """How many clients nobody has accepted; they are accepted by hand, and closed."""
    listener.setblocking(False)
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o16_an_accept_that_goes_on(driver: Driver, net: Net, family: str) -> None:
    listener = net.listener(family)
    accept = portio.Accept(driver.associate(listener, "data"), multishot=True)
    driver.submit(accept)
    for _ in range(10):  # clients that come one by one
        client = net.client(listener)
        done = driver.wait_for(accept)
        assert not done.last
        assert accept.pending
        assert done.error is None
        assert done.nbytes == 0
        assert done.key is accept.key
        assert done.key.data == "data"
        accepted = net.own(done.result())
        assert (accepted.family, accepted.type) == (listener.family, listener.type)
        assert not accepted.get_inheritable()
        accepted.sendall(b"welcome")
        assert client.recv(16) == b"welcome"
    driver.assert_quiet()
    driver.cancel(accept)
    assert ended(driver.wait_for(accept), accept)


@pytest.mark.core
def test_o16_o1_clients_that_come_at_once(driver: Driver, net: Net) -> None:
    """Each is delivered once, in the order in which they came."""
    listener = net.listener()
    clients = [net.client(listener) for _ in range(40)]
    accept = portio.Accept(driver.associate(listener), multishot=True)
    driver.submit(accept)
    accepted = [net.own(driver.wait_for(accept).result()) for _ in clients]
    names = [client.getsockname() for client in clients]
    assert sorted(sock.getpeername() for sock in accepted) == sorted(names)
    driver.assert_quiet()
    driver.cancel(accept)
    assert ended(driver.wait_for(accept), accept)


@pytest.mark.core
def test_o16_in_order_and_no_more_than_one_ahead(port: portio.Port, net: Net) -> None:
    """What the program does not take waits in the backlog, and not in the port."""
    listener = net.listener()
    names = [net.client(listener).getsockname() for _ in range(20)]
    accept = portio.Accept(port.associate(listener), multishot=True)
    port.submit(accept)
    peers = [net.own(take(port).result()).getpeername() for _ in range(5)]
    accept.cancel()
    while not ended(done := take(port), accept):
        peers.append(net.own(done.result()).getpeername())
    assert peers == names[: len(peers)]
    assert len(peers) <= 6
    assert waiting_clients(listener) == 20 - len(peers)
    assert port.get(0) is None


@pytest.mark.core
def test_o16_many_taken_at_once_are_of_many_operations(port: portio.Port, net: Net) -> None:
    """A batch has at most one completion of each operation."""
    listener = net.listener()
    key = port.associate(listener)
    accepts = [portio.Accept(key, multishot=True) for _ in range(3)]
    port.submit(*accepts)
    clients = [net.client(listener) for _ in range(30)]
    count = 0
    while count < len(clients):
        batch = port.get_many(100, LIMIT)
        for done in batch:
            net.own(done.result())
        assert len({id(done.operation) for done in batch}) == len(batch) <= len(accepts)
        count += len(batch)
    for accept in accepts:
        accept.cancel()
    assert all(done.last for done in (take(port) for _ in accepts))
    assert port.get(0) is None


@pytest.mark.core
def test_o16_o6_what_was_accepted_before_the_cancel_arrives(port: portio.Port, net: Net) -> None:
    """Between two completions the operation is with nobody, and is cancelled all the same."""
    listener = net.listener()
    accept = portio.Accept(port.associate(listener), multishot=True)
    for _ in range(20):
        clients = [net.client(listener) for _ in range(3)]
        port.submit(accept)
        port.submit(timer := portio.Timer(0))
        accepted = 0
        # With the timer's packet there is most likely one of the accept in the port.
        while (done := take(port)).operation is not timer:
            done.result().close()
            accepted += 1
        accept.cancel()
        accept.cancel()
        while not ended(done := take(port), accept):
            done.result().close()
            accepted += 1
        assert accepted + waiting_clients(listener) == 3
        assert port.get(0) is None
        accept.cancel()  # of one that has ended: nothing
        for client in clients:
            client.close()


def test_o16_o6_races_with_connecting_clients(driver: Driver, net: Net) -> None:
    listener = net.listener(LOCAL)
    accept = portio.Accept(driver.associate(listener), multishot=True)
    start = threading.Barrier(2)
    accepted = 0

    def connect() -> None:
        for _ in range(40):
            start.wait(LIMIT)
            net.client(listener)
            net.client(listener)

    with Background(connect):
        for _ in range(40):
            driver.submit(accept)
            start.wait(LIMIT)
            driver.cancel(accept)
            while not ended(done := driver.wait_for(accept), accept):
                done.result().close()
                accepted += 1
            for done in driver.settle():  # taken before the last, by a slower thread
                done.result().close()
                accepted += 1
    assert accepted + waiting_clients(listener) == 80


def test_o16_o6_a_token_that_is_late(shared_port: portio.Port, net: Net) -> None:
    """Cancelled by threads while others take: no request is lost between two turns."""
    listener = net.listener(LOCAL)
    accept = portio.Accept(shared_port.associate(listener), multishot=True)
    stop = threading.Event()

    def connect() -> int:
        count = 0
        while not stop.is_set():
            with socket.socket(listener.family) as client:
                client.connect(listener.getsockname())
            count += 1
        return count

    def serve() -> int:
        count = 0
        while not (done := take(shared_port)).last:
            done.result().close()
            count += 1
        return count

    connecting = Background(connect)
    accepted = 0
    for _ in range(60):
        shared_port.submit(accept)
        serving = Background(serve)
        with Background(accept.cancel):
            accepted += serving.result()  # hangs when the request was lost
    stop.set()
    drained = 0
    while connecting.is_alive():  # the last of them may wait for room in the backlog
        drained += waiting_clients(listener)
    assert accepted + drained + waiting_clients(listener) == connecting.result()


@pytest.mark.core
def test_o16_k5_closing_the_key_is_the_end(driver: Driver, net: Net) -> None:
    listener = net.listener()
    key = driver.associate(listener)
    accept = portio.Accept(key, multishot=True)
    driver.submit(accept)
    for _ in range(3):
        net.client(listener)
        net.own(driver.wait_for(accept).result())
    driver.close_key(key)
    assert ended(driver.wait_for(accept), accept)


@pytest.mark.core
def test_o16_k5_what_was_accepted_before_the_close_arrives(port: portio.Port, net: Net) -> None:
    for _ in range(10):
        listener = net.listener()
        client = net.client(listener)
        key = port.associate(listener)
        accept = portio.Accept(key, multishot=True)
        port.submit(accept)
        key.close()
        while not ended(done := take(port), accept):
            with done.result() as accepted:
                accepted.sendall(b"x")
                assert client.recv(1) == b"x"
    assert port.get(0) is None


@pytest.mark.core
def test_o16_p7_closing_the_port_is_the_end(driver: Driver, net: Net) -> None:
    listener = net.listener()
    accept = portio.Accept(driver.associate(listener), multishot=True)
    driver.submit(accept)
    net.client(listener)
    net.own(driver.wait_for(accept).result())
    driver.close()
    assert not accept.pending
    with pytest.raises(RuntimeError, match="has not completed"):
        accept.result()


@pytest.mark.core
def test_o16_p7_accepted_but_not_taken_is_closed(port: portio.Port, net: Net) -> None:
    """Every client sees an end: the one in the packet, and those in the backlog."""
    listener = net.listener()
    clients = [net.client(listener) for _ in range(4)]
    accept = portio.Accept(port.associate(listener), multishot=True)
    port.submit(accept)
    take(port).result().close()
    port.close()
    listener.close()
    assert not accept.pending
    for client in clients:
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass


@pytest.mark.core
def test_o16_k4_the_handle_stays_the_ports(port: portio.Port, net: Net) -> None:
    """Pending is pending, also while a completion waits to be taken."""
    listener = net.listener()
    key = port.associate(listener)
    accept = portio.Accept(key, multishot=True)
    for clients in (0, 1):
        if clients:
            net.client(listener)
        port.submit(accept)
        with pytest.raises(OSError, match="pending") as refused:
            port.disassociate(key)
        assert refused.value.errno == errno.EBUSY
        if clients:
            net.own(take(port).result())
            with pytest.raises(OSError, match="pending"):
                port.disassociate(key)
        accept.cancel()
        assert ended(take(port), accept)


@needs_chosen_numbers
def test_o16_k6_a_number_that_is_anothers_by_now(port: portio.Port, net: Net) -> None:
    """The next turn does not begin on a handle that was closed behind our back."""
    listener = net.listener()
    number = os.dup(listener.fileno())
    client = net.client(listener)
    accept = portio.Accept(port.associate(number), multishot=True)
    port.submit(accept)  # which accepts the client
    stranger = net.listener()
    net.client(stranger)
    os.dup2(stranger.fileno(), number)
    try:
        with take(port).result() as accepted:
            assert accepted.getpeername() == client.getsockname()
        last = take(port)
        assert last.last
        assert last.error is not None
        assert last.error.errno in (errno.EBADF, errno.ECANCELED)
        assert not accept.pending
        assert waiting_clients(stranger) == 1
    finally:
        os.close(number)


@pytest.mark.core
def test_o16_o10_an_error_is_the_last(driver: Driver, net: Net) -> None:
    socket_that_does_not_listen = net.socket()
    socket_that_does_not_listen.bind(("127.0.0.1", 0))
    accept = portio.Accept(driver.associate(socket_that_does_not_listen), multishot=True)
    for _ in range(3):
        done = driver.run(accept)
        assert done.last
        assert done.error is not None
        assert done.error.errno == errno.EINVAL
        assert not accept.pending
    driver.assert_quiet()


EXHAUSTED = """
    import errno, os, socket, sys, time, portio
    backend, bound = sys.argv[1], sys.argv[2] == "thread_bound"
    port = portio.Port(backend=backend, thread_bound=bound)
    listener = socket.create_server(("127.0.0.1", 0))
    accept = portio.Accept(port.associate(listener), multishot=True)
    port.submit(accept)
    def take():
        done = port.get(30)
        assert done is not None and done.operation is accept, done
        return done
    early = socket.create_connection(listener.getsockname())
    take().result().close()
    late = [socket.socket(), socket.socket()]
    hoard = []
    try:
        while True:
            hoard.append(os.dup(0))
    except OSError as error:
        assert error.errno == errno.EMFILE
    for client in late:
        client.connect(listener.getsockname())
    done = take()
    assert done.last and not accept.pending
    assert done.error is not None and done.error.errno == errno.EMFILE, done
    before = time.process_time()
    assert port.get(0.2) is None
    assert time.process_time() - before < 0.1       # nothing spins while the limit lasts
    for fd in hoard:
        os.close(fd)
    port.submit(accept)     # the clients have waited
    for client in late:
        accepted = take().result()
        accepted.sendall(b"welcome")
        accepted.close()
        assert client.recv(16) == b"welcome"
        client.close()
    early.close()
    accept.cancel()
    assert take().last
    port.close()
"""


@needs_resource_limits
@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_o16_o14_exhausted_descriptors(backend: str, kind: str) -> None:
    limited = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
    run_script(limited + textwrap.dedent(EXHAUSTED), backend, kind)


def test_o16_o5_not_twice_but_again(driver: Driver, net: Net) -> None:
    listener = net.listener()
    accept = portio.Accept(driver.associate(listener), multishot=True)
    for _ in range(3):
        driver.submit(accept)
        net.client(listener)
        net.own(driver.wait_for(accept).result())
        with pytest.raises(RuntimeError, match="pending"):
            driver.submit(accept)
        with pytest.raises(RuntimeError, match="pending"):
            accept.result()
        driver.cancel(accept)
        assert ended(driver.wait_for(accept), accept)
        with pytest.raises(portio.OperationCancelledError):
            accept.result()


def test_o16_o2_neither_quiet_nor_unqueued(driver: Driver, net: Net) -> None:
    key = driver.associate(net.listener())
    accept = portio.Accept(key, multishot=True)
    with pytest.raises(ValueError, match=r"portio\.Accept.*multishot"):
        driver.submit(accept, queued=False)
    with pytest.raises(ValueError, match=r"portio\.Accept.*multishot"):
        driver.call(driver.port.submit, accept, quiet=True)
    with pytest.raises(ValueError, match="multishot"):
        driver.call(driver.port.submit, portio.Timer(0), accept, quiet=True)
    assert not accept.pending
    driver.submit(accept)
    with pytest.raises(RuntimeError, match="queue"):
        driver.call(accept.wait, 0)
    driver.cancel(accept)
    assert ended(driver.wait_for(accept), accept)


def test_o16_beside_ordinary_accepts(driver: Driver, net: Net) -> None:
    """Each client goes to one of them."""
    listener = net.listener()
    key = driver.associate(listener)
    endless = portio.Accept(key, multishot=True)
    single = [portio.Accept(key) for _ in range(5)]
    driver.submit(*single)
    driver.submit(endless)
    clients = [net.client(listener) for _ in range(25)]
    peers = []
    ends = 0
    for done in driver.take(len(clients)):
        peers.append(net.own(done.result()).getpeername())
        ends += done.last
    assert sorted(peers) == sorted(client.getsockname() for client in clients)
    for accept in (*single, endless):
        driver.cancel(accept)
    while ends < 6:
        ends += driver.take()[0].last
    driver.assert_quiet()


@pytest.mark.skipif(WINDOWS, reason="a port has no descriptor on Windows")
def test_o16_p11_the_descriptor_tells_of_each(port: portio.Port, net: Net) -> None:
    listener = net.listener()
    accept = portio.Accept(port.associate(listener), multishot=True)
    descriptor = port.fileno()
    port.submit(accept)
    for count in (1, 5):
        for _ in range(count):
            net.client(listener)
        accepted = 0
        while accepted < count:
            readable, _, _ = select.select([descriptor], [], [], LIMIT)
            assert readable, f"no wake-up for client {accepted} of {count}"
            while (done := port.get(0)) is not None:
                net.own(done.result())
                accepted += 1
    accept.cancel()
    assert ended(take(port), accept)


def test_o16_p9_cancelled_by_another_thread(make_port: MakePort, net: Net) -> None:
    """A thread-bound port hears of it by mail, which may be read a turn later."""
    port = make_port(thread_bound=True)
    listener = net.listener()
    accept = portio.Accept(port.associate(listener), multishot=True)
    for _ in range(20):
        port.submit(accept)
        for _ in range(3):
            net.client(listener)
        with Background(accept.cancel):
            accepted = 0
            while not ended(done := take(port), accept):
                done.result().close()
                accepted += 1
        assert accepted + waiting_clients(listener) == 3


def test_o16_lazily(make_port: MakePort, net: Net) -> None:
    port = make_port(thread_bound=True, lazy_submit=True)
    listener = net.listener()
    accept = portio.Accept(port.associate(listener), multishot=True)
    port.submit(accept)
    for _ in range(10):
        net.client(listener)
        net.own(take(port).result())
    accept.cancel()
    assert ended(take(port), accept)
