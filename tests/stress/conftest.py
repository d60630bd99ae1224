"""A seed that is printed and can be set, and threads that interrupt each other often."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def rng() -> random.Random:
    """Chance, of which pytest shows the seed when the test fails.

    ``PORTIO_TEST_SEED=number`` repeats a run; threads still differ from run to
    run, but what they do does not.
    """
    seed = int(os.environ.get("PORTIO_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"PORTIO_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(autouse=True)
def _restless() -> Iterator[None]:
    """Let threads take turns a hundred times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)
