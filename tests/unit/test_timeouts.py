"""Seconds to nanoseconds: exact, rounded up, never negative."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portio import timeouts
from portio.timeouts import FOREVER, LONGEST, Deadline, from_optional, to_nanoseconds


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_never_less_and_less_than_one_nanosecond_more(seconds: float) -> None:
    nanoseconds = to_nanoseconds(seconds)
    exact = Fraction(seconds) * 10**9
    assert nanoseconds == LONGEST if exact > LONGEST else exact <= nanoseconds < exact + 1


@pytest.mark.parametrize(
    ("seconds", "nanoseconds"),
    [
        (0, 0),
        (0.0, 0),
        (-0.0, 0),
        (1, 10**9),
        (True, 10**9),
        (5e-324, 1),  # the smallest number there is still waits
        (1e-9, 2),  # the float is a little more than a nanosecond
        (Decimal("0.1"), 10**8),
        (Fraction(1, 3), 333_333_334),
        (1e300, LONGEST),
        (10**30, LONGEST),
        (math.inf, LONGEST),
    ],
)
def test_values(seconds: Any, nanoseconds: int) -> None:
    assert to_nanoseconds(seconds) == nanoseconds


@pytest.mark.parametrize("seconds", [-1, -1e-9, -math.inf, math.nan, Decimal("NaN")])
def test_negative_and_nan(seconds: Any) -> None:
    with pytest.raises(ValueError, match="a time-out must not be"):
        to_nanoseconds(seconds)


@pytest.mark.parametrize("seconds", ["1", b"2", None, [], object()])
def test_what_is_no_number(seconds: Any) -> None:
    with pytest.raises(TypeError, match="the delay must be a number of seconds"):
        to_nanoseconds(seconds, "the delay")


def test_the_longest_time_fits_the_clock() -> None:
    assert timeouts.monotonic_ns() + LONGEST < 2**63


def test_none_waits_for_ever() -> None:
    assert from_optional(None) == FOREVER
    assert from_optional(0) == 0


def test_a_deadline_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "monotonic_ns", lambda: 10**18)
    assert Deadline(FOREVER).left() == FOREVER
    assert Deadline(0).left() == 0


def test_a_deadline_runs_down_and_stays_at_0(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10**18
    monkeypatch.setattr(timeouts, "monotonic_ns", lambda: now)
    deadline = Deadline(100)
    assert deadline.left() == 100
    now += 99
    assert deadline.left() == 1
    now += 1000
    assert deadline.left() == 0
