"""The contract holds without the accelerator: the core of it once more, in Python alone."""

from __future__ import annotations

import pytest

from portio import accelerator
from support.core import CORE_LIMIT, run_core


@pytest.mark.timeout(CORE_LIMIT + 30)
def test_the_core_of_the_contract_in_python() -> None:
    if not accelerator.ACCELERATED:
        pytest.skip("there is no accelerator here: the whole suite runs without it")
    run_core(PORTIO_ACCELERATOR="0")
