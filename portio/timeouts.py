"""Seconds at the surface, nanoseconds at the door.

The one rule: nothing that waits returns early.  A number of seconds is therefore
converted exactly and rounded up, never through a floating-point product, and a
wait that a signal interrupts goes on with what is left until its deadline.
"""

from __future__ import annotations

from time import monotonic_ns

__all__ = ["FOREVER", "LONGEST", "Deadline", "from_optional", "to_nanoseconds"]

#: The door's value for a wait without end.
FOREVER = -1
#: 146 years.  Longer times are cut to it, so that the sum with the present time
#: fits 64 bits.
LONGEST = 2**62


def to_nanoseconds(seconds: float, what: str = "a time-out") -> int:
    """`seconds` in nanoseconds, rounded up, at most `LONGEST`.

    Takes int, float and everything else that knows its exact ratio (Fraction,
    Decimal).  Raises TypeError for what is not a number, ValueError for NaN and
    for negative numbers; `what` names the value in the text.
    """
    try:
        numerator, denominator = seconds.as_integer_ratio()
    except AttributeError:
        kind = type(seconds).__name__
        raise TypeError(f"{what} must be a number of seconds, not {kind}") from None
    except OverflowError:  # an infinity
        if seconds < 0:
            raise ValueError(f"{what} must not be negative: {seconds!r}") from None
        return LONGEST
    except ValueError:
        raise ValueError(f"{what} must not be NaN") from None
    if numerator < 0:
        raise ValueError(f"{what} must not be negative: {seconds!r}")
    nanoseconds: int = -(-numerator * 1_000_000_000 // denominator)
    return min(nanoseconds, LONGEST)


def from_optional(timeout: float | None) -> int:
    """The door's value of a time-out: None waits for ever, 0 polls."""
    return FOREVER if timeout is None else to_nanoseconds(timeout)


class Deadline:
    """The end of a wait that may take several calls."""

    __slots__ = ("_end", "_nanoseconds")

    def __init__(self, nanoseconds: int) -> None:
        self._nanoseconds = nanoseconds
        self._end = monotonic_ns() + nanoseconds if nanoseconds > 0 else 0

    def left(self) -> int:
        """What the next call may wait, in nanoseconds; at least 0, or `FOREVER`."""
        if self._nanoseconds <= 0:
            return self._nanoseconds
        return max(self._end - monotonic_ns(), 0)
