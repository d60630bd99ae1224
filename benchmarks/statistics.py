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


def ratio(values: Sequence[float], reference: Sequence[float]) -> float | None:
    """Give the ratio of the medians, or None when the reference is nothing."""
    base = median(reference)
    return median(values) / base if base else None
