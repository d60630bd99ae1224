"""O1 exactly once, O2 one error path, O4 early completion, O5 reuse."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portio
from support.drivers import Driver
from support.net import Net
from support.system import LOCAL
from support.threads import Background
from support.watch import LIMIT, eventually

MakePort = Callable[..., portio.Port]


# O1 exactly once


@pytest.mark.core
def test_o1_one_completion_for_each(driver: Driver, net: Net) -> None:
    """The driver fails the test for a second completion; here it is for a missing one."""
    ours, peer = net.pair()
    key = driver.associate(ours)
    receives = [portio.Recv(key, bytearray(1)) for _ in range(100)]
    sends = [portio.Send(key, b"x") for _ in range(100)]
    timers = [portio.Timer(0) for _ in range(100)]
    driver.submit(*receives, *sends, *timers)
    peer.sendall(bytes(100))
    everything: list[portio.Operation[Any]] = [*receives, *sends, *timers]
    for done in driver.wait_for_all(everything):
        assert done.error is None
        assert done.last
    driver.assert_quiet()


def test_o1_each_submit_of_one_operation_counts(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    receive = portio.Recv(driver.associate(ours), bytearray(1))
    for number in range(200):
        peer.sendall(bytes([number % 256]))
        assert driver.result(receive) == 1
        assert receive.buffer[0] == number % 256
    driver.assert_quiet()


@pytest.mark.core
@pytest.mark.parametrize("position", [0, 1, 2])
def test_o1_all_are_validated_before_any_is_started(
    driver: Driver, net: Net, position: int
) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    good = [portio.Send(key, b"must not be sent"), portio.Send(key, b"nor this")]
    bad = portio.Recv(key, b"read-only")  # type: ignore[arg-type]
    batch: list[portio.Operation[Any]] = list(good)
    batch.insert(position, bad)
    with pytest.raises((BufferError, TypeError)):
        driver.submit(*batch)
    assert not any(operation.pending for operation in batch)
    driver.assert_quiet()
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(1)
    driver.submit(*good)  # they are as good as new
    assert [done.result() for done in driver.wait_for_all(good)] == [16, 8]
    driver.let_go(key)  # and nothing is pending


@pytest.mark.parametrize(
    "bad",
    ["no operation", "of another port", "closed key", "pending", "free key", "twice in one call"],
)
def test_o1_whatever_is_wrong_with_one_of_them(
    driver: Driver, net: Net, backend: str, bad: str
) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    good = portio.Send(key, b"no")
    pending = portio.Recv(key, bytearray(1))
    driver.submit(pending)
    with portio.Port(backend=backend) as other:
        wrong: Any
        if bad == "no operation":
            wrong = "Send"
        elif bad == "of another port":
            wrong = portio.Send(other.associate(net.pair()[0]), b"x")
        elif bad == "closed key":
            with driver.associate(net.pair()[0]) as closed:
                wrong = portio.Send(closed, b"x")
        elif bad == "pending":
            wrong = pending
        elif bad == "free key":
            wrong = portio.Send(portio.CompletionKey(), b"x")
        else:
            wrong = good
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            driver.submit(good, wrong)
    assert not good.pending
    assert pending.pending
    peer.sendall(b"!")
    assert driver.wait_for(pending).result() == 1
    driver.assert_quiet()
    driver.let_go(key)
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(1)


def test_o1_nothing_to_submit_is_fine(driver: Driver) -> None:
    driver.submit()
    driver.assert_quiet()


def test_o1_one_call_may_mix_kinds_and_handles(driver: Driver, net: Net, tmp_path: Path) -> None:
    ours, peer = net.pair()
    peer.sendall(b"stream")
    reader, writer = portio.pipe()
    with portio.open(tmp_path / "file", "w+") as file, reader, writer:
        receive = portio.Recv(driver.associate(ours), bytearray(16))
        write = portio.Write(driver.associate(file), b"file", 100)
        pipe_write = portio.Write(driver.associate(writer), b"pipe")
        pipe_read = portio.Read(driver.associate(reader), bytearray(16))
        timer = portio.Timer(0)
        driver.submit(pipe_read, receive, timer, write, pipe_write)
        results = driver.wait_for_all([receive, write, pipe_write, pipe_read, timer])
        assert [done.result() for done in results] == [6, 4, 4, 4, None]


def test_o1_a_batch_far_larger_than_any_queue(driver: Driver) -> None:
    timers = [portio.Timer(0) for _ in range(10_000)]
    driver.submit(*timers)
    assert all(done.error is None for done in driver.wait_for_all(timers))


# O2 one error path


@pytest.mark.core
def test_o2_what_the_system_refuses_arrives_with_the_completion(
    driver: Driver, net: Net, tmp_path: Path
) -> None:
    """Each of these fails at once in the native call; submit says nothing about it."""
    unconnected = net.socket()
    not_listening = net.socket()
    connected, _ = net.pair()
    refused = net.socket()
    reader, writer = portio.pipe()
    (tmp_path / "file").write_bytes(b"contents")
    closing = net.socket()
    with portio.open(tmp_path / "file") as read_only, reader, writer:
        connected_key = driver.associate(connected)
        expected: list[tuple[portio.Operation[Any], type[OSError], str]] = [
            (portio.Recv(driver.associate(unconnected), bytearray(4)), OSError, "ENOTCONN"),
            (portio.Accept(driver.associate(not_listening)), OSError, "EINVAL"),
            (portio.Connect(connected_key, connected.getpeername()), OSError, "EISCONN"),
            (
                portio.Connect(driver.associate(refused), net.refused_address()),
                ConnectionRefusedError,
                "ECONNREFUSED",
            ),
            (portio.Write(driver.associate(read_only), b"x"), OSError, "EBADF"),
            (portio.Read(driver.associate(writer), bytearray(1)), OSError, "EBADF"),
            (portio.Write(driver.associate(reader), b"x"), OSError, "EBADF"),
            (portio.Shutdown(driver.associate(closing)), OSError, "ENOTCONN"),
        ]
        driver.submit(*(operation for operation, _, _ in expected))
        for operation, family, name in expected:
            done = driver.wait_for(operation)
            assert type(done.error) is family, done
            assert done.error is not None
            assert done.error.errno == getattr(errno, name), done
            with pytest.raises(family):
                done.result()


def test_o2_a_descriptor_that_has_gone_bad(driver: Driver) -> None:
    """Closed behind the port's back: for a raw number only the system can tell."""
    ours, peer = socket.socketpair()
    with peer:
        fd = ours.detach()
        key = driver.associate(fd)
        socket.close(fd)
        done = driver.run(portio.Send(key, b"x"))
        assert isinstance(done.error, OSError)
        assert done.error.errno == 9  # EBADF


def test_o2_a_batch_in_which_some_fail(driver: Driver, net: Net) -> None:
    ours, _ = net.pair()
    key, bad = driver.associate(ours), driver.associate(net.socket())
    operations = [
        operation
        for _ in range(20)
        for operation in (portio.Send(key, b"x"), portio.Recv(bad, bytearray(1)))
    ]
    driver.submit(*operations)
    failures = [done.error is not None for done in driver.wait_for_all(operations)]
    assert failures == [False, True] * 20


# O4 early completion


@pytest.mark.core
def test_o4_completed_before_submit_has_returned(make_port: MakePort, net: Net) -> None:
    """Everything is published before the system knows: worker threads take completions
    of ready operations all the time while submit is still on its way."""
    port = make_port(4)
    ours, peer = net.pair(LOCAL)
    key = port.associate(ours)
    seen: list[int] = []

    class Numbered(portio.Recv):
        def __init__(self, number: int) -> None:
            super().__init__(key, bytearray(1))
            self.number = number

    def serve() -> None:
        for done in port:
            assert isinstance(done.operation, Numbered)
            assert done.result() == 1
            assert done.key is key
            assert not done.operation.pending
            assert done.operation.result() == 1
            seen.append(done.operation.number)

    workers = [Background(serve) for _ in range(3)]
    with Background(lambda: [peer.sendall(bytes(50)) for _ in range(40)]):
        for number in range(0, 2000, 4):
            port.submit(*(Numbered(number + part) for part in range(4)))
        eventually(
            lambda: len(seen) == 2000 or not all(worker.is_alive() for worker in workers),
            "every receive was completed",
        )
    port.close()
    for worker in workers:
        worker.result()
    assert sorted(seen) == list(range(2000))


def test_o4_resubmitted_by_the_worker_before_the_first_submit_returned(
    make_port: MakePort,
) -> None:
    """The worker may be a whole life ahead of the thread that submitted."""
    port = make_port(4)
    lives: list[int] = []
    finished = threading.Event()

    class Again(portio.Timer):
        lives = 0

    def serve() -> None:
        for done in port:
            assert done.error is None
            assert isinstance(done.operation, Again)
            done.operation.lives += 1
            if done.operation.lives < 5:
                port.submit(done.operation)
            else:
                lives.append(done.operation.lives)
                if len(lives) == 400:
                    finished.set()

    workers = [Background(serve) for _ in range(3)]
    for _ in range(400):
        port.submit(Again(0))
    assert finished.wait(LIMIT), f"only {len(lives)} of 400"
    port.close()
    for worker in workers:
        worker.result()


def test_o4_an_operation_dropped_at_once(driver: Driver) -> None:
    """Nobody holds the operation when its completion comes, perhaps during submit."""
    for _ in range(500):
        driver.submit(portio.Timer(0))
    packets = driver.take(500)
    assert all(isinstance(packet.operation, portio.Timer) for packet in packets)
    assert len({id(packet.operation) for packet in packets}) == 500


# O5 reuse


@pytest.mark.core
def test_o5_a_completed_operation_may_be_submitted_again(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    receive, send = portio.Recv(key, bytearray(8)), portio.Send(key, b"out")
    for number in range(5):
        peer.sendall(b"%d" % number)
        assert driver.result(receive) == 1
        assert receive.buffer[:1] == b"%d" % number
        assert driver.result(send) == 3
    assert peer.recv(64) == b"out" * 5


def test_o5_also_after_an_error_or_a_cancel(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    receive = portio.Recv(driver.associate(ours), bytearray(8))
    driver.submit(receive)
    driver.cancel(receive)
    with pytest.raises(portio.OperationCancelledError):
        driver.wait_for(receive).result()
    peer.sendall(b"second")
    assert driver.result(receive) == 6
    assert receive.result() == 6  # nothing of the cancel is left on it


def test_o5_fields_may_be_changed_in_between(driver: Driver, tmp_path: Path) -> None:
    with portio.open(tmp_path / "file", "w+") as file:
        write = portio.Write(driver.associate(file), b"first", 0)
        assert driver.result(write) == 5
        write.buffer, write.offset = b"second", 10
        assert driver.result(write) == 6
    assert (tmp_path / "file").read_bytes() == b"first\0\0\0\0\0second"


@pytest.mark.core
@pytest.mark.parametrize("queued", [True, False])
def test_o5_a_pending_operation_may_not(driver: Driver, net: Net, queued: bool) -> None:
    ours, peer = net.pair()
    receive = portio.Recv(driver.associate(ours), bytearray(8))
    driver.submit(receive)
    assert receive.pending
    with pytest.raises(RuntimeError, match="pending"):
        driver.submit(receive, queued=queued)
    assert receive.pending
    peer.sendall(b"once")
    assert driver.wait_for(receive).result() == 4
    assert not receive.pending
    driver.assert_quiet()


def test_o5_twice_in_one_call(driver: Driver, net: Net) -> None:
    ours, _ = net.pair()
    key = driver.associate(ours)
    receive = portio.Recv(key, bytearray(8))
    with pytest.raises((RuntimeError, ValueError)):
        driver.submit(receive, receive)
    assert not receive.pending
    driver.let_go(key)


def test_o5_from_two_threads_at_once_one_wins(make_port: MakePort) -> None:
    port = make_port()
    for _ in range(100):
        timer = portio.Timer(1000)
        start = threading.Barrier(2)

        def submit(timer: portio.Timer = timer, start: threading.Barrier = start) -> bool:
            start.wait(LIMIT)
            try:
                port.submit(timer)
            except RuntimeError:
                return False
            return True

        threads = [Background(submit), Background(submit)]
        assert sorted(thread.result() for thread in threads) == [False, True]
        timer.cancel()
        done = port.get(LIMIT)
        assert done is not None
        assert done.operation is timer
        assert port.get(0) is None


def test_o5_the_completion_of_an_earlier_life_keeps_its_values(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    receive = portio.Recv(driver.associate(ours), bytearray(8))
    peer.sendall(b"abc")
    first = driver.run(receive)
    peer.sendall(b"12345")
    second = driver.run(receive)
    assert (first.nbytes, second.nbytes) == (3, 5)
    assert (first.result(), second.result()) == (3, 5)


# Submissions that may wait (lazy_submit)


@pytest.fixture
def lazy(make_port: MakePort) -> portio.Port:
    """A thread-bound port that saves system calls by waiting for the next one."""
    return make_port(thread_bound=True, lazy_submit=True)


@pytest.mark.core
@pytest.mark.parametrize("call", ["get", "get(0)", "get_many", "wait", "flush"])
def test_o1_lazy_submissions_start_with_the_next_call(
    lazy: portio.Port, net: Net, call: str
) -> None:
    ours, peer = net.pair()
    send = portio.Send(lazy.associate(ours), b"at last")
    timer = portio.Timer(0)
    lazy.submit(timer, queued=False)
    lazy.submit(send)
    if call == "wait":
        assert timer.wait(LIMIT) is not None
    elif call == "get(0)":
        done = lazy.get(0)
        assert done is None or done.operation is send
    elif call == "flush":
        lazy.flush()
    else:
        done = lazy.get(LIMIT) if call == "get" else lazy.get_many(4, LIMIT)[0]
        assert done is not None
        assert done.operation is send
    assert peer.recv(16) == b"at last"


def test_o1_lazy_submissions_complete_once_and_in_order(lazy: portio.Port, net: Net) -> None:
    ours, peer = net.pair(LOCAL)
    key = lazy.associate(ours)
    for number in range(300):
        send = portio.Send(key, b"%03d" % number)
        receive = portio.Recv(key, bytearray(3))
        lazy.submit(receive, send)
        peer.sendall(b"%03d" % number)
        done = lazy.get_many(1, LIMIT) + lazy.get_many(1, LIMIT)
        assert {id(packet.operation) for packet in done} == {id(send), id(receive)}
        assert receive.buffer == b"%03d" % number == peer.recv(3)
    assert lazy.get(0) is None


def test_o1_lazy_submissions_and_the_end(lazy: portio.Port, net: Net) -> None:
    """Closing a key or the port ends also what had not begun."""
    ours, peer = net.pair()
    key = lazy.associate(ours)
    receive, timer = portio.Recv(key, buffer := bytearray(8)), portio.Timer(1000)
    lazy.submit(receive, timer)
    key.close()
    assert peer.recv(1) == b""
    done = lazy.get(LIMIT)
    assert done is not None
    assert done.operation is receive
    assert isinstance(done.error, portio.OperationCancelledError)
    buffer.append(0)
    lazy.submit(portio.Timer(1000))
    lazy.close()
    assert not timer.pending


# The program's own operations


@pytest.mark.core
def test_o1_a_subclass_carries_the_programs_state(driver: Driver, net: Net) -> None:
    class Receive(portio.Recv):
        def __init__(self, key: portio.CompletionKey, buffer: bytearray, note: str) -> None:
            super().__init__(key, buffer)
            self.note = note

    ours, peer = net.pair()
    peer.sendall(b"x")
    driver.submit(Receive(driver.associate(ours), bytearray(4), "carried"))
    [done] = driver.take()
    match done.operation:
        case Receive(note=note) as receive if done.nbytes:
            assert note == "carried"
            assert receive.buffer[:1] == b"x"
        case _:
            pytest.fail(f"no match: {done!r}")
