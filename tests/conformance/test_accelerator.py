"""The contract holds without the accelerator: the core of it once more, in Python alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from portio import accelerator
from support.children import environment

_SUITE = Path(__file__).parent
_LIMIT = 600  # seconds; catches a hang


@pytest.mark.timeout(_LIMIT + 30)
def test_the_core_of_the_contract_in_python() -> None:
    if not accelerator.ACCELERATED:
        pytest.skip("there is no accelerator here: the whole suite runs without it")
    run = subprocess.run(
        [
            sys.executable, "-P", "-m", "pytest", str(_SUITE), "-m", "core", "-q", "-x",
            "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header",
        ],
        env=environment(PORTIO_ACCELERATOR="0", PYTEST_ADDOPTS=""),
        cwd=_SUITE.parents[1],
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    assert " passed" in run.stdout
