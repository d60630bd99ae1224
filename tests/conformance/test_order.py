"""P2 order, P3 waiters, P4 concurrency: who gets which packet, and when.

The threads here take packets with their own hands, because the clauses are
about exactly that.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import portio
from support.marks import kernel_sees_who_blocks, wine_releases_the_first
from support.net import Net
from support.threads import Background
from support.watch import LIMIT, eventually, fail_with_dump, wait_until_blocked

MakePort = Callable[..., portio.Port]
Order = Callable[[], Any]


class Worker:
    """A thread that does with a port what the test orders, one order at a time."""

    def __init__(self, port: portio.Port, name: str) -> None:
        self.port = port
        self.name = name
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.thread = Background(self._work)
        self.thread.name = name

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                self._answers.put(order())
            except BaseException as error:  # noqa: BLE001 - answer() raises it
                self._answers.put(error)

    def order(self, order: Order) -> None:
        """Start something; answer() has its result."""
        self._orders.put(order)

    def wait_in(self, order: Order) -> None:
        """Start something that blocks, and return when it does."""
        self.order(order)
        wait_until_blocked(self.thread)

    def get(self) -> None:
        """Ask for a packet, and return when the thread sleeps in the port."""
        self.wait_in(self.port.get)

    @property
    def answered(self) -> bool:
        return not self._answers.empty()

    def answer(self) -> Any:
        try:
            answer = self._answers.get(timeout=LIMIT)
        except queue.Empty:
            fail_with_dump(f"worker {self.name} got nothing within {LIMIT:g} s")
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def do(self, order: Order) -> Any:
        """Have something done at once."""
        self.order(order)
        return self.answer()

    def end(self) -> None:
        self._orders.put(None)
        self.thread.result()


@pytest.fixture
def hire() -> Iterator[Callable[[portio.Port, int], list[Worker]]]:
    """Makes workers, and closes their ports at the end so that they go home."""
    hired: list[Worker] = []

    def make(port: portio.Port, count: int) -> list[Worker]:
        workers = [Worker(port, f"worker-{chr(65 + number)}") for number in range(count)]
        hired.extend(workers)
        return workers

    yield make
    for worker in hired:
        worker.port.close()
    for worker in hired:
        worker.end()


Hire = Callable[[portio.Port, int], list[Worker]]


def answered(workers: list[Worker]) -> list[Worker]:
    return [worker for worker in workers if worker.answered]


def one_answer(workers: list[Worker]) -> tuple[Worker, Any]:
    """The one worker that got something; the others must be asleep still."""
    eventually(lambda: answered(workers), "a worker is released")
    [worker] = answered(workers)
    return worker, worker.answer()


# P2 order


@pytest.mark.core
def test_p2_posted_packets_are_first_in_first_out(port: portio.Port) -> None:
    for number in range(1000):
        port.post(None, number)
    taken = []
    while len(taken) < 1000:
        packet = port.get(0)
        assert packet is not None
        taken.append(packet.nbytes)
        taken += [packet.nbytes for packet in port.get_many(7, 0)]
    assert taken == list(range(1000))


def test_p2_completions_and_posts_share_one_queue(port: portio.Port) -> None:
    """Neither kind of packet overtakes the other when the order is known."""
    reader, writer = portio.pipe()
    with reader, writer:
        keys = port.associate(reader), port.associate(writer)
        port.post(None, 1)
        write = portio.Write(keys[1], b"x")
        port.submit(write)
        first = port.get(LIMIT)
        assert first is not None
        assert first.operation is None
        second = port.get(LIMIT)
        assert second is not None
        assert second.operation is write
        port.post(None, 2)
        port.post(None, 3)
        rest = port.get_many(5, LIMIT)
        assert [packet.nbytes for packet in rest] == [2, 3]


def test_p2_order_holds_across_waits(shared_port: portio.Port) -> None:
    """Packets that come while a thread waits are not overtaken by later ones."""
    taken: list[int] = []

    def take() -> None:
        while len(taken) < 20_000:
            packet = shared_port.get()
            assert packet is not None
            taken.append(packet.nbytes)

    taker = Background(take)
    for number in range(20_000):
        shared_port.post(None, number)
    taker.result()
    assert taken == list(range(20_000))


def test_p2_each_thread_sees_packets_in_order(make_port: MakePort) -> None:
    """With many takers, each one's own packets still ascend."""
    port = make_port(4)
    taken: list[list[int]] = [[] for _ in range(4)]

    def take(mine: list[int]) -> None:
        for packet in port:
            mine.append(packet.nbytes)

    takers = [Background(take, mine) for mine in taken]
    for number in range(10_000):
        port.post(None, number)
    eventually(lambda: sum(map(len, taken)) == 10_000, "every packet was taken")
    port.close()
    for taker in takers:
        taker.result()
    for mine in taken:
        assert mine == sorted(mine)
    assert sorted(itertools.chain(*taken)) == list(range(10_000))


# P3 waiters


@wine_releases_the_first
@pytest.mark.core
def test_p3_the_last_to_wait_is_the_first_released(make_port: MakePort, hire: Hire) -> None:
    port = make_port(8)
    workers = hire(port, 5)
    for worker in workers:
        worker.get()
    for number, expected in enumerate(reversed(workers)):
        port.post(None, number)
        worker, packet = one_answer(workers)
        assert worker.name == expected.name
        assert packet.nbytes == number


@wine_releases_the_first
def test_p3_a_hot_thread_stays_hot(make_port: MakePort, hire: Hire) -> None:
    port = make_port(8)
    workers = hire(port, 3)
    for worker in workers:
        worker.get()
    for number in range(10):
        port.post(None, number)
        worker, packet = one_answer(workers)
        assert worker is workers[-1]
        assert packet.nbytes == number
        worker.get()


@wine_releases_the_first
def test_p3_completions_of_the_system_release_last_in_first_out(
    make_port: MakePort, hire: Hire, net: Net
) -> None:
    """The thread that happens to watch the system hands on what is not its turn."""
    port = make_port(8)
    ours, peer = net.pair()
    key = port.associate(ours)
    workers = hire(port, 4)
    for worker in workers:
        worker.get()
    for number, expected in enumerate(reversed(workers)):
        receive = portio.Recv(key, bytearray(4))
        port.submit(receive)
        peer.sendall(bytes([number]))
        worker, packet = one_answer(workers)
        assert worker.name == expected.name
        assert packet.operation is receive
        assert receive.buffer[0] == number


@wine_releases_the_first
def test_p3_a_waiter_that_gave_up_is_passed_over(make_port: MakePort, hire: Hire) -> None:
    port = make_port(8)
    first, second, third = workers = hire(port, 3)
    first.get()
    second.wait_in(lambda: port.get(0.1))
    third.get()
    assert second.answer() is None
    port.post(None, 1)
    worker, _ = one_answer(workers)
    assert worker is third
    port.post(None, 2)
    worker, packet = one_answer(workers)
    assert worker is first
    assert packet.nbytes == 2


def test_p3_when_the_watcher_leaves_another_takes_over(
    make_port: MakePort, hire: Hire, net: Net
) -> None:
    """Whichever waiter watches the system may time out; the rest still see completions."""
    port = make_port(8)
    ours, peer = net.pair()
    key = port.associate(ours)
    workers = hire(port, 4)
    for worker, timeout in zip(workers, (0.1, 0.05, 0.15, None), strict=True):
        worker.wait_in(lambda timeout=timeout: port.get(timeout))
    for worker in workers[:3]:
        assert worker.answer() is None
    port.submit(portio.Recv(key, bytearray(1)))
    peer.sendall(b"!")
    assert workers[3].answer().nbytes == 1


# P4 concurrency


@kernel_sees_who_blocks
@pytest.mark.core
@pytest.mark.parametrize("concurrency", [1, 2, 3])
def test_p4_at_most_so_many_threads_run(make_port: MakePort, hire: Hire, concurrency: int) -> None:
    port = make_port(concurrency)
    workers = hire(port, 5)
    for worker in workers:
        worker.get()
    for number in range(10):
        port.post(None, number)
    eventually(lambda: len(answered(workers)) >= concurrency, "the permitted workers run")
    running = answered(workers)
    wait_until_blocked(*(worker.thread for worker in workers))
    assert answered(workers) == running
    assert len(running) == concurrency
    assert sorted(worker.answer().nbytes for worker in running) == list(range(concurrency))


@kernel_sees_who_blocks
def test_p4_waiters_that_arrive_when_packets_are_queued_wait_too(
    make_port: MakePort, hire: Hire
) -> None:
    port = make_port(1)
    first, second = hire(port, 2)
    for number in range(3):
        port.post(None, number)
    assert first.do(port.get).nbytes == 0
    second.get()
    assert not second.answered
    first.get()  # asks for the next: its place is free, and taken by itself
    assert first.answer().nbytes == 1
    assert not second.answered


@kernel_sees_who_blocks
def test_p4_a_running_thread_takes_the_next_packet_without_a_switch(
    make_port: MakePort, hire: Hire
) -> None:
    port = make_port(1)
    workers = hire(port, 3)
    for worker in workers:
        worker.get()
    for number in range(10):
        port.post(None, number)
    hot, packet = one_answer(workers)
    numbers = [packet.nbytes] + [hot.do(port.get).nbytes for _ in range(9)]
    assert numbers == list(range(10))
    assert answered(workers) == []


@kernel_sees_who_blocks
def test_p4_at_the_cap_a_poll_takes_nothing(make_port: MakePort, hire: Hire) -> None:
    port = make_port(1)
    first, second = hire(port, 2)
    port.post(None, 1)
    port.post(None, 2)
    assert first.do(port.get).nbytes == 1
    assert second.do(lambda: port.get(0)) is None
    assert second.do(lambda: port.get_many(10, 0)) == []
    assert second.do(lambda: port.get(0.02)) is None
    assert first.do(lambda: port.get(0)).nbytes == 2


@kernel_sees_who_blocks
def test_p4_a_batch_is_one_place(make_port: MakePort, hire: Hire) -> None:
    port = make_port(2)
    first, second, third = hire(port, 3)
    for number in range(6):
        port.post(None, number)
    assert len(first.do(lambda: port.get_many(4))) == 4
    assert second.do(port.get).nbytes == 4
    assert third.do(lambda: port.get(0)) is None


@kernel_sees_who_blocks
@pytest.mark.core
def test_p4_blocking_gives_up_the_place(make_port: MakePort, hire: Hire) -> None:
    port = make_port(1)
    first, second = hire(port, 2)
    gate, inside = threading.Event(), threading.Event()

    def block() -> None:
        with port.blocking():
            inside.set()
            assert gate.wait(LIMIT)

    second.get()
    port.post(None, 1)
    port.post(None, 2)
    assert second.answer().nbytes == 1
    first.get()
    assert not first.answered
    second.order(block)
    assert inside.wait(LIMIT)
    assert first.answer().nbytes == 2
    gate.set()
    second.answer()  # comes back at once: a brief overshoot is allowed
    port.post(None, 3)
    second.get()  # both places asked for: the one that is left goes to nobody yet
    assert not second.answered
    first.get()
    eventually(lambda: first.answered or second.answered, "the packet is taken")
    [last] = answered([first, second])
    assert last.answer().nbytes == 3


@kernel_sees_who_blocks
def test_p4_blocking_ends_with_an_exception_too(make_port: MakePort, hire: Hire) -> None:
    port = make_port(1)
    first, second = hire(port, 2)

    def fail_inside() -> None:
        with port.blocking():
            raise KeyError("inside")

    port.post(None, 1)
    assert first.do(port.get).nbytes == 1
    with pytest.raises(KeyError):
        first.do(fail_inside)
    port.post(None, 2)  # the place is held again
    assert second.do(lambda: port.get(0)) is None
    assert first.do(port.get).nbytes == 2


@kernel_sees_who_blocks
def test_p4_blocking_nests_and_is_harmless_without_a_place(make_port: MakePort, hire: Hire) -> None:
    port = make_port(1)
    first, second = hire(port, 2)

    def twice() -> None:
        with port.blocking(), port.blocking():
            pass

    first.do(twice)  # it has taken nothing yet, so it gives up nothing
    port.post(None, 1)
    port.post(None, 2)
    assert first.do(port.get).nbytes == 1
    first.do(twice)
    assert second.do(lambda: port.get(0)) is None  # neither gave up more than there was
    assert first.do(lambda: port.get(0)).nbytes == 2


def test_p4_a_thread_that_ends_gives_up_its_place(make_port: MakePort, hire: Hire) -> None:
    port = make_port(1)
    [waiter] = hire(port, 1)

    def take_and_die() -> None:
        packet = port.get()
        assert packet is not None

    port.post(None, 1)
    Background(take_and_die).result()
    port.post(None, 2)
    waiter.order(port.get)
    assert waiter.answer().nbytes == 2


@kernel_sees_who_blocks
def test_p4_a_thread_that_ends_releases_who_waits_already(make_port: MakePort, hire: Hire) -> None:
    port = make_port(1)
    waiter, mortal = hire(port, 2)
    port.post(None, 1)
    assert mortal.do(port.get).nbytes == 1
    waiter.get()
    port.post(None, 2)
    wait_until_blocked(waiter.thread)
    assert not waiter.answered
    mortal.end()
    assert waiter.answer().nbytes == 2


@kernel_sees_who_blocks
def test_p4_a_thread_that_turns_to_another_port_gives_up_its_place(
    make_port: MakePort, hire: Hire
) -> None:
    port, other = make_port(1), make_port(1)
    waiter, traveller = hire(port, 2)
    port.post(None, 1)
    assert traveller.do(port.get).nbytes == 1
    waiter.get()
    port.post(None, 2)
    wait_until_blocked(waiter.thread)
    assert not waiter.answered
    assert traveller.do(lambda: other.get(0)) is None
    assert waiter.answer().nbytes == 2


def test_p4_a_thread_that_waits_again_gives_up_its_place(make_port: MakePort, hire: Hire) -> None:
    """Also a wait that gets nothing in the end had given the place up."""
    port = make_port(1)
    first, second = hire(port, 2)
    port.post(None, 1)
    assert first.do(port.get).nbytes == 1
    assert first.do(lambda: port.get(0.01)) is None
    port.post(None, 2)
    assert second.do(lambda: port.get(0)).nbytes == 2


@kernel_sees_who_blocks
def test_p4_completions_of_the_system_count_too(make_port: MakePort, hire: Hire, net: Net) -> None:
    port = make_port(1)
    workers = hire(port, 3)
    pairs = [net.pair() for _ in range(3)]
    for ours, _ in pairs:
        port.submit(portio.Recv(port.associate(ours), bytearray(1)))
    for worker in workers:
        worker.get()
    for _, peer in pairs:
        peer.sendall(b"x")
    hot, packet = one_answer(workers)
    assert packet.nbytes == 1
    wait_until_blocked(*(worker.thread for worker in workers))
    assert answered(workers) == []
    for _ in range(2):
        assert hot.do(lambda: port.get(LIMIT)).nbytes == 1


@kernel_sees_who_blocks
def test_p4_closing_wakes_those_whom_the_cap_holds_back(make_port: MakePort, hire: Hire) -> None:
    port = make_port(1)
    first, second = hire(port, 2)
    port.post(None, 1)
    port.post(None, 2)
    assert first.do(port.get).nbytes == 1
    second.get()
    port.close()
    with pytest.raises(portio.PortClosedError):
        second.answer()
