"""The contract holds without the accelerator: the core of it once more, in Python alone."""

from __future__ import annotations

import pytest

from portio import accelerator
from support.core import CORE_LIMIT, run_core
from support.system import WINE


@pytest.mark.timeout(CORE_LIMIT + 30)
def test_the_core_of_the_contract_in_python() -> None:
    if not accelerator.ACCELERATED:
        pytest.skip("there is no accelerator here: the whole suite runs without it")
    # There it takes three minutes, and who drives a port makes no difference to these steps.
    run_core("not worker_pool and not trio" if WINE else "", PORTIO_ACCELERATOR="0")
