"""O13 unqueued: an operation that one thread waits for, beside the queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portio
from support.drivers import Driver
from support.kinds import every_kind
from support.net import Net
from support.threads import Background
from support.watch import LIMIT, wait_until_blocked

MakePort = Callable[..., portio.Port]


@pytest.mark.core
def test_o13_the_completion_comes_from_wait_and_not_from_the_queue(
    driver: Driver, net: Net
) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours, "data")
    receive = portio.Recv(key, bytearray(8))
    driver.submit(receive, queued=False)
    peer.sendall(b"abc")
    driver.assert_quiet()
    done = driver.wait(receive)
    assert done.operation is receive
    assert done.key is key
    assert done.result() == done.nbytes == receive.result() == 3
    assert done.last
    assert not receive.pending
    driver.assert_quiet()


def test_o13_every_kind(driver: Driver, net: Net, tmp_path: Path) -> None:
    with every_kind(driver, net, tmp_path) as (expected, accept):
        for operation, result in expected:
            driver.submit(operation, queued=False)
            assert driver.wait(operation).result() == result
        driver.submit(accept, queued=False)
        net.own(driver.wait(accept).result())
    driver.assert_quiet()


@pytest.mark.core
def test_o13_wait_times_out_and_may_be_tried_again(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    receive = portio.Recv(driver.associate(ours), bytearray(8))
    driver.submit(receive, queued=False)
    assert driver.call(receive.wait, 0) is None
    for seconds in (0.0005, 0.0015, 0.03):
        start = time.perf_counter()
        assert driver.call(receive.wait, seconds) is None
        assert time.perf_counter() - start >= seconds
    assert receive.pending
    peer.sendall(b"x")
    assert driver.wait(receive).result() == 1


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_o13_bad_time_outs(driver: Driver, timeout: Any) -> None:
    timer = portio.Timer(1000)
    driver.submit(timer, queued=False)
    with pytest.raises((ValueError, TypeError)):
        driver.call(timer.wait, timeout)
    assert timer.pending
    driver.cancel(timer)
    assert driver.wait(timer).error is not None


@pytest.mark.core
def test_o13_only_what_is_unqueued_can_be_waited_for(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    queued = portio.Recv(driver.associate(ours), bytearray(8))
    with pytest.raises(RuntimeError):
        driver.call(queued.wait, 0)  # never submitted
    driver.submit(queued)
    with pytest.raises(RuntimeError, match="queue"):
        driver.call(queued.wait, 0)
    peer.sendall(b"still queued")
    assert driver.wait_for(queued).result() == 8
    with pytest.raises(RuntimeError):
        driver.call(queued.wait, 0)


def test_o13_waiting_again_gives_the_same_completion(driver: Driver) -> None:
    """Until the operation is submitted again; nothing new comes of it."""
    timer = portio.Timer(0)
    driver.submit(timer, queued=False)
    done = driver.wait(timer)
    assert driver.wait(timer) is done
    driver.assert_quiet()
    driver.submit(timer)  # queued this time
    with pytest.raises(RuntimeError, match="queue"):
        driver.call(timer.wait, 0)
    assert driver.wait_for(timer).result() is None
    driver.submit(timer, queued=False)
    again = driver.wait(timer)
    assert again is not done
    assert again.result() is None


def test_o13_it_stays_until_it_is_waited_for(driver: Driver, net: Net) -> None:
    """However many others complete meanwhile, in whatever order."""
    timers = [portio.Timer(0.0001 * number) for number in range(50)]
    driver.submit(*timers, queued=False)
    for _ in range(5):
        others = [portio.Timer(0) for _ in range(100)]
        driver.submit(*others)
        driver.wait_for_all(others)
    for timer in reversed(timers):
        assert timer.pending
        assert driver.wait(timer).error is None
    del net


def test_o13_errors_arrive_the_same_way(driver: Driver, net: Net) -> None:
    receive = portio.Recv(driver.associate(net.socket()), bytearray(8))
    driver.submit(receive, queued=False)
    done = driver.wait(receive)
    assert done.error is not None
    with pytest.raises(OSError, match="Recv"):
        receive.result()


@pytest.mark.core
def test_o13_packets_that_come_during_a_wait_are_kept(driver: Driver, net: Net) -> None:
    """The waiter reaps what belongs to others, and leaves it in the queue."""
    ours, peer = net.pair()
    receives = [portio.Recv(driver.associate(ours), bytearray(1)) for _ in range(1)]
    driver.submit(*receives)
    timer = portio.Timer(0.05)
    driver.submit(timer, queued=False)
    peer.sendall(b"x")
    driver.post(None, 7)
    assert driver.wait(timer).error is None
    packets = driver.take(2)
    assert sorted(packet.nbytes for packet in packets) == [1, 7]


def test_o13_a_thread_in_wait_and_one_in_get(make_port: MakePort, net: Net) -> None:
    """Whichever of them watches the system serves the other."""
    for wait_first in (True, False):
        ours, peer = net.pair()
        unqueued_socket, unqueued_peer = net.pair()
        port = make_port(2)
        key, unqueued_key = port.associate(ours), port.associate(unqueued_socket)
        for order in ("queued first", "unqueued first"):
            receive = portio.Recv(key, bytearray(1))
            unqueued = portio.Recv(unqueued_key, bytearray(1))
            port.submit(receive)
            port.submit(unqueued, queued=False)
            calls: list[Callable[[], Any]] = [unqueued.wait, port.get]
            if not wait_first:
                calls.reverse()
            threads = []
            for call in calls:
                threads.append(Background(call))
                wait_until_blocked(threads[-1])
            peers = [peer, unqueued_peer]
            if order == "unqueued first":
                peers.reverse()
            for sender in peers:
                sender.sendall(b"x")
            results = [thread.result() for thread in threads]
            if not wait_first:
                results.reverse()
            assert [done.operation for done in results] == [unqueued, receive]
        port.close()


def test_o13_waiters_do_not_steal_each_others_completions(make_port: MakePort) -> None:
    port = make_port(8)
    timers = [portio.Timer(0.01 * (number % 4)) for number in range(8)]
    port.submit(*timers, queued=False)
    threads = [Background(timer.wait, LIMIT) for timer in timers]
    for timer, thread in zip(timers, threads, strict=True):
        done = thread.result()
        assert done is not None
        assert done.operation is timer
    assert port.get(0) is None


def test_o13_several_threads_wait_for_one(make_port: MakePort) -> None:
    """Each gets the completion, also when the slot has its next operation at once."""
    port = make_port(4)
    for _ in range(50):
        timer = portio.Timer(0.002)
        port.submit(timer, queued=False)
        threads = [Background(timer.wait, LIMIT) for _ in range(3)]
        threads[0].result()
        port.submit(later := portio.Timer(1000), queued=False)
        for thread in threads:
            done = thread.result()
            assert done is not None
            assert done.operation is timer
        later.cancel()
        assert later.wait(LIMIT) is not None


def test_o13_a_waiting_thread_holds_no_place(make_port: MakePort) -> None:
    """P4: who waits for an operation is blocked, and does not keep others from running."""
    port = make_port(1)
    timer = portio.Timer(1000)
    port.submit(timer, queued=False)
    waiter = Background(timer.wait)
    wait_until_blocked(waiter)
    port.post(None, 1)
    packet = port.get(LIMIT)
    assert packet is not None
    timer.cancel()
    done = waiter.result()
    assert done is not None
    assert done.error is not None


def test_o13_a_batch_may_be_unqueued(driver: Driver) -> None:
    timers = [portio.Timer(0) for _ in range(20)]
    driver.submit(*timers, queued=False)
    for timer in timers:
        assert driver.wait(timer).operation is timer
    driver.assert_quiet()


def test_o13_close_ends_what_nobody_waited_for(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    buffer, other = bytearray(8), bytearray(8)
    key = driver.associate(ours)
    finished, pending = portio.Recv(key, buffer), portio.Recv(key, other)
    driver.submit(finished, pending, queued=False)
    peer.sendall(b"x")
    driver.assert_quiet()
    with pytest.raises(BufferError):
        buffer.append(0)
    driver.close()
    buffer.append(0)
    other.append(0)
    assert not finished.pending
    assert not pending.pending
