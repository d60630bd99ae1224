"""Timer: time as an operation, and never early."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import pytest

import portio
from support.drivers import Driver
from support.net import Net
from support.threads import Background
from support.watch import LIMIT, processor_seconds, wait_until_blocked


@pytest.mark.core
@pytest.mark.parametrize("seconds", [0, 1e-9, 0.0005, 0.0015, 0.01, 0.05])
def test_p5_a_timer_is_never_early(driver: Driver, seconds: float) -> None:
    timer = portio.Timer(seconds)
    start = time.perf_counter()
    done = driver.run(timer)
    assert time.perf_counter() - start >= timer.seconds
    assert done.error is None
    assert done.result() is None
    assert done.nbytes == 0
    assert done.key is None
    assert done.operation is timer


@pytest.mark.core
def test_o1_timers_fire_in_the_order_of_their_times(port: portio.Port) -> None:
    seconds = [0.08, 0.02, 0.06, 0.01, 0.04, 0.0]
    timers = [portio.Timer(value) for value in seconds]
    port.submit(*timers)
    fired: list[Any] = []
    while len(fired) < len(timers):
        done = port.get(LIMIT)
        assert done is not None
        fired.append(done.operation)
    assert [timer.seconds for timer in fired] == sorted(seconds)


def test_o1_a_later_timer_may_fire_first(driver: Driver) -> None:
    """A shorter one submitted while the wait for a longer one is under way."""
    driver.submit(long := portio.Timer(1000))
    driver.assert_quiet()
    assert driver.result(portio.Timer(0.01)) is None
    assert long.pending
    driver.cancel(long)
    driver.wait_for(long)


def test_o1_a_timer_set_from_outside_a_wait(shared_port: portio.Port) -> None:
    """The thread that watches the system learns of a nearer time."""
    waiter = Background(shared_port.get)
    wait_until_blocked(waiter)
    shared_port.submit(timer := portio.Timer(0.01))
    done = waiter.result()
    assert done is not None
    assert done.operation is timer


def test_k2_a_timer_with_a_key(driver: Driver, net: Net) -> None:
    ours, _ = net.pair()
    key = driver.associate(ours, "session")
    done = driver.run(portio.Timer(0, key))
    assert done.key is key
    driver.submit(timer := portio.Timer(0.01, key))
    driver.close_key(key)  # closing it cancels what is pending on the handle
    done = driver.wait_for(timer)
    assert done.key is key
    assert done.error is None or isinstance(done.error, portio.OperationCancelledError)


@pytest.mark.core
def test_o5_a_timer_again_and_again(driver: Driver) -> None:
    timer = portio.Timer(0.001)
    for _ in range(20):
        start = time.perf_counter()
        assert driver.result(timer) is None
        assert time.perf_counter() - start >= 0.001
    timer.seconds = 0.02
    start = time.perf_counter()
    driver.result(timer)
    assert time.perf_counter() - start >= 0.02


def test_o11_enormous_timers(driver: Driver) -> None:
    timers = [portio.Timer(seconds) for seconds in (1e9, 2.0**40, 1e15, float("inf"))]
    for timer in timers:
        try:
            driver.submit(timer)
        except (ValueError, OverflowError):
            assert timer.seconds == float("inf")
            continue
        driver.assert_quiet()
        assert timer.pending
        driver.cancel(timer)
        assert isinstance(driver.wait_for(timer).error, portio.OperationCancelledError)


def test_o14_thousands_of_timers(driver: Driver) -> None:
    timers = [portio.Timer((number * 7919 % 5000) * 1e-5) for number in range(5000)]
    driver.submit(*timers)
    for done in driver.wait_for_all(timers):
        assert done.error is None


def test_o14_a_long_timer_costs_no_processor_time(port: portio.Port) -> None:
    port.submit(portio.Timer(1000))
    assert processor_seconds(lambda: port.get(0.3)) < 0.15


def test_o1_integers_and_other_numbers(driver: Driver) -> None:
    assert driver.result(portio.Timer(0)) is None
    try:
        driver.result(portio.Timer(Fraction(1, 1000)))  # type: ignore[arg-type]
    except TypeError:
        pass
