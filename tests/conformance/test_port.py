"""P1 create, P5 get, P6 post: a port by itself."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import portio
from support.drivers import Driver
from support.net import Net
from support.system import get_affinity, set_affinity
from support.threads import Background
from support.watch import wait_until_blocked

MakePort = Callable[..., portio.Port]


class Payload:
    """Something with an identity, to which weak references are possible."""


# P1 create


def test_p1_concurrency_zero_means_the_usable_processors(make_port: MakePort) -> None:
    assert make_port().concurrency == len(get_affinity())
    assert make_port(0).concurrency == len(get_affinity())


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_p1_concurrency_as_asked(make_port: MakePort, count: int) -> None:
    assert make_port(count).concurrency == count


def test_p1_concurrency_follows_the_affinity_of_the_process(make_port: MakePort) -> None:
    usable = get_affinity()
    try:
        set_affinity({min(usable)})
        assert make_port().concurrency == 1
    finally:
        set_affinity(usable)


def test_p1_negative_concurrency(backend: str) -> None:
    with pytest.raises(ValueError, match="concurrency"):
        portio.Port(-1, backend=backend)


@pytest.mark.parametrize("concurrency", [1.5, "2", None])
def test_p1_concurrency_is_an_integer(backend: str, concurrency: Any) -> None:
    with pytest.raises(TypeError):
        portio.Port(concurrency, backend=backend)


def test_p1_absurd_concurrency_is_refused_or_kept(backend: str) -> None:
    try:
        with portio.Port(2**40, backend=backend) as port:
            assert port.concurrency == 2**40
    except (ValueError, OverflowError):
        pass


def test_p1_properties_of_a_new_port(port: portio.Port, backend: str) -> None:
    assert port.backend == backend
    assert not port.closed
    assert port.thread_bound in (True, False)
    assert backend in repr(port)


def test_p1_unknown_backend() -> None:
    with pytest.raises(ValueError, match="no-such"):
        portio.Port(backend="no-such")


def test_p1_lazy_submit_needs_a_thread_bound_port(backend: str) -> None:
    with pytest.raises(ValueError, match="lazy_submit"):
        portio.Port(backend=backend, lazy_submit=True)


# P5 get


@pytest.mark.core
def test_p5_get_gives_one_packet(port: portio.Port) -> None:
    port.post(None, 1)
    port.post(None, 2)
    first = port.get()
    assert isinstance(first, portio.Completion)
    assert first.nbytes == 1
    second = port.get(0)
    assert second is not None
    assert second.nbytes == 2
    assert port.get(0) is None


def test_p5_zero_polls(port: portio.Port) -> None:
    assert port.get(0) is None
    assert port.get_many(10, 0) == []


@pytest.mark.parametrize("seconds", [1e-9, 0.0001, 0.0009, 0.001, 0.0015, 0.0101, 0.05])
def test_p5_never_returns_early(port: portio.Port, seconds: float) -> None:
    for wait in (port.get, lambda timeout: port.get_many(4, timeout)):
        start = time.perf_counter()
        assert not wait(timeout=seconds)
        assert time.perf_counter() - start >= seconds


def test_p5_never_returns_early_with_other_waiters(shared_port: portio.Port) -> None:
    """The one that watches the system and the ones that are parked keep the same time."""

    def wait(seconds: float) -> float:
        start = time.monotonic()
        assert shared_port.get(seconds) is None
        return time.monotonic() - start - seconds

    waits = [Background(wait, seconds) for seconds in (0.07, 0.02, 0.05, 0.01, 0.03)]
    # Where the clock counts milliseconds, the difference of two floats may miss 0 by a hair.
    assert all(waiter.result() > -1e-6 for waiter in waits)


def test_p5_a_finished_wait_leaves_the_others_waiting(shared_port: portio.Port) -> None:
    """A waiter whose time is up takes no packet away and wakes nobody else."""
    for_ever = Background(shared_port.get)
    wait_until_blocked(for_ever)
    assert shared_port.get(0.01) is None
    assert for_ever.is_alive()
    shared_port.post(None, 5)
    packet = for_ever.result()
    assert packet is not None
    assert packet.nbytes == 5


@pytest.mark.parametrize("timeout", [1e9, 1e12, 2**63])
def test_p5_enormous_time_outs(port: portio.Port, timeout: float) -> None:
    with Background(_post_when_blocked, port, threading.current_thread(), 3):
        packet = port.get(timeout)
    assert packet is not None
    assert packet.nbytes == 3


def _post_when_blocked(port: portio.Port, waiter: threading.Thread, nbytes: int) -> None:
    wait_until_blocked(waiter)
    port.post(None, nbytes)


@pytest.mark.core
def test_p5_none_waits_until_something_comes(port: portio.Port) -> None:
    with Background(_post_when_blocked, port, threading.current_thread(), 7):
        packet = port.get()
    assert packet is not None
    assert packet.nbytes == 7


@pytest.mark.parametrize("timeout", [-1, -0.001, float("-inf"), float("nan")])
def test_p5_time_outs_that_are_none(port: portio.Port, timeout: float) -> None:
    port.post()
    with pytest.raises(ValueError, match="time"):
        port.get(timeout)
    with pytest.raises(ValueError, match="time"):
        port.get_many(1, timeout)
    assert len(port.get_many(10, 0)) == 1


def test_p5_wrong_types(port: portio.Port) -> None:
    bad: Any
    port.post()
    for bad in ("1", b"", [1]):
        with pytest.raises(TypeError):
            port.get(bad)
        with pytest.raises(TypeError):
            port.get_many(1, bad)
        with pytest.raises(TypeError):
            port.get_many(bad, 0)
    assert len(port.get_many(10, 0)) == 1


@pytest.mark.core
def test_p5_get_many_takes_all_up_to_the_limit(port: portio.Port) -> None:
    for number in range(10):
        port.post(None, number)
    assert [packet.nbytes for packet in port.get_many(4)] == [0, 1, 2, 3]
    assert [packet.nbytes for packet in port.get_many(100)] == [4, 5, 6, 7, 8, 9]
    assert port.get_many(100, 0) == []


def test_p5_get_many_with_more_than_one_batch(port: portio.Port) -> None:
    """One call gives all that is queued, however the packets cross from the engine."""
    for number in range(5000):
        port.post(None, number)
    assert [packet.nbytes for packet in port.get_many(10_000)] == list(range(5000))


def test_p5_get_many_takes_completions_and_posts_together(port: portio.Port, net: Net) -> None:
    ours, peer = net.pair()
    key = port.associate(ours)
    peer.sendall(b"abc")
    receive = portio.Recv(key, bytearray(8))
    port.submit(receive)
    packets: list[portio.Completion[Any]] = []
    while not packets:
        packets += port.get_many(10)
    port.post(key, 4)
    port.submit(portio.Send(key, b"x"))
    while len(packets) < 3:
        packets += port.get_many(10)
    assert sorted(packet.nbytes for packet in packets) == [1, 3, 4]


@pytest.mark.parametrize("limit", [0, -1])
def test_p5_get_many_wants_a_positive_limit(port: portio.Port, limit: int) -> None:
    port.post()
    with pytest.raises(ValueError, match="limit"):
        port.get_many(limit)
    assert len(port.get_many(1, 0)) == 1


def test_p5_get_many_is_empty_only_on_time_out(port: portio.Port) -> None:
    start = time.perf_counter()
    assert port.get_many(5, 0.03) == []
    assert time.perf_counter() - start >= 0.03
    with Background(_post_when_blocked, port, threading.current_thread(), 1):
        assert [packet.nbytes for packet in port.get_many(5)] == [1]


def test_p5_iterating_ends_when_the_port_is_closed(shared_port: portio.Port) -> None:
    seen: list[int] = []
    waiter = Background(lambda: seen.extend(packet.nbytes for packet in shared_port))
    for number in range(3):
        shared_port.post(None, number)
    wait_until_blocked(waiter)
    shared_port.close()
    waiter.result()
    assert seen == [0, 1, 2]


def test_p5_iterating_a_port_that_its_own_loop_closes(port: portio.Port) -> None:
    for number in range(3):
        port.post(None, number)
    seen = []
    for packet in port:
        seen.append(packet.nbytes)
        if packet.nbytes == 1:
            port.close()
    assert seen == [0, 1]
    assert list(port) == []


# P6 post


@pytest.mark.core
def test_p6_a_packet_arrives_with_its_three_values(driver: Driver, net: Net) -> None:
    ours, _ = net.pair()
    free = portio.CompletionKey("free")
    associated = driver.associate(ours, "associated")
    payload = Payload()
    for key, nbytes, value in (
        (free, 0, None),
        (associated, 1, payload),
        (None, 2**31, "text"),
        (free, 2**32 - 1, (1, 2)),
        (None, 0, payload),
    ):
        driver.post(key, nbytes, value)
        [packet] = driver.take()
        assert packet.key is key
        assert packet.nbytes == nbytes
        assert packet.payload is value
        assert packet.operation is None
        assert packet.error is None
        assert packet.last
        assert packet.result() is value


def test_p6_defaults(driver: Driver) -> None:
    driver.port.post()
    [packet] = driver.take()
    assert (packet.key, packet.nbytes, packet.payload) == (None, 0, None)


def test_p6_bad_arguments_post_nothing(driver: Driver) -> None:
    bad: Any
    for bad in ("key", 5, object()):
        with pytest.raises(TypeError):
            driver.port.post(bad)
    for bad in ("1", 1.5, None):
        with pytest.raises(TypeError):
            driver.port.post(None, bad)
    with pytest.raises((ValueError, OverflowError)):
        driver.port.post(None, -1)
    driver.assert_quiet()


def test_p6_a_key_of_another_port(driver: Driver, backend: str, net: Net) -> None:
    ours, _ = net.pair()
    with portio.Port(backend=backend) as other:
        foreign = other.associate(ours)
        with pytest.raises(ValueError, match="port"):
            driver.port.post(foreign)
    driver.assert_quiet()


def test_p6_from_any_thread_each_packet_once_and_in_its_threads_order(driver: Driver) -> None:
    def post(sender: int) -> None:
        for number in range(500):
            driver.post(None, number, sender)

    senders = [Background(post, sender) for sender in range(6)]
    packets = driver.take(3000)
    for sender in senders:
        sender.result()
    seen: dict[object, list[int]] = {}
    for packet in packets:
        seen.setdefault(packet.payload, []).append(packet.nbytes)
    for numbers in seen.values():
        if driver.name == "worker_pool":  # its mailbox may swap neighbours
            numbers.sort()
        assert numbers == list(range(500))
    assert len(seen) == 6


def test_p6_each_post_wakes_one_of_many_waiters(make_port: MakePort) -> None:
    port = make_port(8)
    waiters = [Background(port.get) for _ in range(8)]
    wait_until_blocked(*waiters)
    for number in range(8):
        port.post(None, number)
    packets = [waiter.result() for waiter in waiters]
    assert sorted(packet.nbytes for packet in packets if packet) == list(range(8))


def test_p6_no_packet_is_dropped_under_load(driver: Driver) -> None:
    """Far more packets than any queue of the system holds, before one is taken."""
    count = 100_000
    if driver.name == "one_thread":
        for number in range(count):
            driver.post(None, number)
        assert [packet.nbytes for packet in driver.take(count)] == list(range(count))
    else:
        with Background(lambda: [driver.post(None, number) for number in range(count)]):
            numbers = sorted(packet.nbytes for packet in driver.take(count))
        assert numbers == list(range(count))


def test_p6_a_queued_packet_keeps_its_payload_alive(port: portio.Port) -> None:
    payload = Payload()
    alive = weakref.ref(payload)
    port.post(None, 0, payload)
    del payload
    gc.collect()
    packet = port.get(0)
    assert packet is not None
    assert packet.payload is alive()
    del packet
    gc.collect()
    assert alive() is None


def test_p6_a_closed_port_lets_go_of_queued_payloads(port: portio.Port) -> None:
    payload = Payload()
    alive = weakref.ref(payload)
    port.post(None, 0, payload)
    del payload
    port.close()
    gc.collect()
    assert alive() is None
