"""P9 threads: who may call what, and what becomes of a thread that leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import portio
from support.children import Child
from support.drivers import Driver
from support.net import Net, recv_exactly
from support.system import LOCAL, WINDOWS, WINE
from support.threads import Background, in_thread
from support.watch import LIMIT, wait_until_blocked

MakePort = Callable[..., portio.Port]


@pytest.fixture
def bound(make_port: MakePort) -> portio.Port:
    return make_port(thread_bound=True)


@pytest.mark.core
def test_p9_every_method_from_any_thread(shared_port: portio.Port, net: Net) -> None:
    """Each call from a thread of its own, none of them the creating one."""
    ours, peer = net.pair()
    other, _ = net.pair()
    key = in_thread(shared_port.associate, ours, "data")
    spare = in_thread(shared_port.associate, other)
    receive = in_thread(portio.Recv, key, bytearray(8))
    in_thread(shared_port.submit, receive)
    peer.sendall(b"abc")
    done = in_thread(shared_port.get, LIMIT)
    assert done is not None
    assert done.operation is receive
    in_thread(shared_port.post, key, 4)
    assert [packet.nbytes for packet in in_thread(shared_port.get_many, 4, LIMIT)] == [4]
    in_thread(shared_port.flush)
    if not WINDOWS:  # where a port has none
        assert in_thread(shared_port.fileno) >= 0
    if not WINE:  # which cannot
        in_thread(shared_port.disassociate, spare)
    timer = portio.Timer(1000)
    in_thread(shared_port.submit, timer)
    in_thread(timer.cancel)
    done = in_thread(shared_port.get, LIMIT)
    assert done is not None
    assert done.operation is timer
    unqueued = portio.Timer(0)
    shared_port.submit(unqueued, queued=False)
    assert in_thread(unqueued.wait, LIMIT) is not None

    def block() -> None:
        with shared_port.blocking():
            pass

    in_thread(block)
    in_thread(key.close)
    in_thread(shared_port.close)
    assert shared_port.closed


def test_p9_a_thread_bound_port_refuses_other_threads(bound: portio.Port, net: Net) -> None:
    ours, _ = net.pair()
    other, _ = net.pair()
    key = bound.associate(ours)
    unqueued = portio.Timer(1000)
    bound.submit(unqueued, queued=False)
    unstarted = portio.Timer(0)

    def block() -> None:
        with bound.blocking():
            pass

    calls: list[Callable[[], object]] = [
        bound.get,
        lambda: bound.get(0),
        lambda: bound.get_many(4, 0),
        lambda: next(iter(bound)),
        lambda: bound.submit(unstarted),
        lambda: bound.submit(unstarted, queued=False),
        lambda: bound.associate(other),
        lambda: bound.disassociate(key),
        bound.flush,
        block,
        key.close,
        lambda: unqueued.wait(0),
        bound.close,
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="thread"):
            in_thread(call)
    assert not bound.closed
    assert not unstarted.pending
    assert unqueued.pending
    assert not key.closed  # nothing was started, nothing was closed
    bound.submit(portio.Send(key, b"x"))
    assert bound.get(LIMIT) is not None
    bound.associate(other)
    assert bound.get(0) is None


@pytest.mark.core
def test_p9_post_to_a_thread_bound_port_from_any_thread(bound: portio.Port) -> None:
    owner = threading.current_thread()

    def post_when_asleep() -> None:
        wait_until_blocked(owner)
        bound.post(None, 17, "from outside")

    with Background(post_when_asleep):
        packet = bound.get()
    assert packet is not None
    assert (packet.nbytes, packet.payload) == (17, "from outside")


@pytest.mark.core
def test_p9_cancel_on_a_thread_bound_port_from_any_thread(bound: portio.Port, net: Net) -> None:
    owner = threading.current_thread()
    ours, _ = net.pair()
    operations = [portio.Recv(bound.associate(ours), bytearray(4)), portio.Timer(1000)]
    for operation in operations:
        bound.submit(operation)

        def cancel_when_asleep(operation: portio.Operation[Any] = operation) -> None:
            wait_until_blocked(owner)
            operation.cancel()

        with Background(cancel_when_asleep):
            done = bound.get(LIMIT)
        assert done is not None
        assert done.operation is operation
        assert isinstance(done.error, portio.OperationCancelledError)


def test_p9_cancel_from_another_thread_before_the_owner_waits(bound: portio.Port) -> None:
    """The owner carries it out at its next call."""
    timer = portio.Timer(1000)
    bound.submit(timer)
    in_thread(timer.cancel)
    done = bound.get(LIMIT)
    assert done is not None
    assert done.operation is timer
    assert isinstance(done.error, portio.OperationCancelledError)


def test_p9_cancel_from_another_thread_of_what_is_already_done(bound: portio.Port) -> None:
    """A foreign cancel that comes too late hits nothing, also not the slot's next user."""
    timer = portio.Timer(0)
    bound.submit(timer)
    assert bound.get(LIMIT) is not None
    in_thread(timer.cancel)
    following = portio.Timer(0.01)
    bound.submit(following)
    done = bound.get(LIMIT)
    assert done is not None
    assert done.operation is following
    assert done.error is None


def test_p9_many_foreign_posts_and_cancels(bound: portio.Port) -> None:
    timers = [portio.Timer(1000) for _ in range(200)]
    bound.submit(*timers)

    def work(part: int) -> None:
        for number in range(part, 200, 4):
            bound.post(None, number)
            timers[number].cancel()

    threads = [Background(work, part) for part in range(4)]
    packets: list[portio.Completion[Any]] = []
    while len(packets) < 400:
        more = bound.get_many(64, LIMIT)
        assert more, f"only {len(packets)} of 400 packets"
        packets += more
    for thread in threads:
        thread.result()
    assert sorted(p.nbytes for p in packets if p.operation is None) == list(range(200))
    assert {id(p.operation) for p in packets if p.operation is not None} == set(map(id, timers))
    assert all(isinstance(p.error, portio.OperationCancelledError) for p in packets if p.operation)
    assert bound.get(0) is None


def test_p9_the_owner_has_ended(backend: str, net: Net) -> None:
    """Then anyone may close, and only that; what was pending is drained."""
    ours, peer = net.pair()
    buffer = bytearray(32)

    def own() -> portio.Port:
        port = portio.Port(backend=backend, thread_bound=True)
        port.submit(portio.Recv(port.associate(ours), buffer))
        return port

    port = in_thread(own)
    with pytest.raises(RuntimeError, match="thread"):
        port.get(0)
    with pytest.raises(RuntimeError, match="thread"):
        in_thread(port.get, 0)  # a new thread may well have the old one's number
    port.post()  # legal, though nobody will take it
    port.close()
    assert port.closed
    peer.sendall(b"free again")
    assert recv_exactly(ours, 10) == b"free again"
    assert buffer == bytes(32)
    buffer.append(0)


def test_p9_an_operation_outlives_the_thread_that_started_it(driver: Driver, net: Net) -> None:
    """Some systems cancel what a thread had pending when it exits; a port does not."""
    if driver.port.thread_bound:
        pytest.skip("of a thread-bound port only the owner starts operations")
    ours, peer = net.pair()
    receive = portio.Recv(driver.associate(ours), bytearray(16))
    accept = portio.Accept(driver.associate(listener := net.listener()))
    reader, writer = portio.pipe()
    with reader, writer:
        read = portio.Read(driver.associate(reader), bytearray(16))
        timer = portio.Timer(0.05)
        in_thread(driver.submit, receive, accept, read, timer)
        peer.sendall(b"late")
        net.client(listener)
        driver.result(portio.Write(driver.associate(writer), b"later"))
        assert driver.wait_for(receive).result() == 4
        net.own(driver.wait_for(accept).result())
        assert driver.wait_for(read).result() == 5
        assert driver.wait_for(timer).error is None


CLIENT = """
    import socket, sys
    sys.stdin.readline()
    socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()
"""


def test_p9_a_thread_that_computes_holds_nothing_up(shared_port: portio.Port, net: Net) -> None:
    """Its operations complete, and others take them, without a call of the system by it."""
    listener = net.listener()
    accept = portio.Accept(shared_port.associate(listener))
    timer = portio.Timer(0.05)
    started, over = threading.Event(), False

    def compute() -> None:
        shared_port.submit(accept, timer)
        started.set()
        while not over:
            pass

    with Child(CLIENT, listener.getsockname()[1]) as child, Background(compute):
        try:
            assert started.wait(LIMIT)
            child.say("go")
            taken = set()
            for _ in range(2):
                done = shared_port.get(LIMIT)
                assert done is not None
                taken.add(done.operation)
        finally:
            over = True
        assert taken == {accept, timer}
        net.own(accept.result())
        child.finish()


def test_p9_submitting_threads_come_and_go(driver: Driver, net: Net) -> None:
    """Many short-lived threads, each with one operation of its own."""
    if driver.port.thread_bound:
        pytest.skip("of a thread-bound port only the owner starts operations")
    pairs = [net.pair(LOCAL) for _ in range(32)]
    receives = [portio.Recv(driver.associate(ours), bytearray(8)) for ours, _ in pairs]
    threads = [Background(driver.submit, receive) for receive in receives]
    for thread in threads:
        thread.result()
    for number, (_, peer) in enumerate(pairs):
        peer.sendall(b"%d" % number)
    for number, done in enumerate(driver.wait_for_all(receives)):
        assert done.operation is receives[number]
        assert receives[number].buffer[: done.nbytes] == b"%d" % number
