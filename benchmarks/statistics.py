"""What is made of the repetitions: medians, their uncertainty, and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def median(values: Sequence[float]) -> float:
    """Give the median, which one disturbed repetition does not move far."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> float:
    """Give the median distance from the median, as a share of the median."""
    middle = median(values)
    if middle == 0:
        return 0.0
    return median([abs(value - middle) for value in values]) / abs(middle)


def middle_half(values: Sequence[float]) -> tuple[float, float]:
    """Give the bounds that a quarter of the values is below, and a quarter above."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def ratio(values: Sequence[float], reference: Sequence[float]) -> float | None:
    """Give the ratio of the medians, or None when the reference is nothing."""
    base = median(reference)
    return median(values) / base if base else None


def ratios(values: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Give the ratio of each repetition: both were measured one soon after the other."""
    return [one / base for one, base in zip(values, reference, strict=False) if base]
