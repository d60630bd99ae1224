"""The core of the conformance suite once more, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.children import environment

_SUITE = Path(__file__).parents[1] / "conformance"

CORE_LIMIT = 600
"""Seconds; catches a hang."""


def run_core(select: str = "", **changes: str) -> None:
    """Run the tests marked `core` with these variables, or those of them that `select` names (-k).

    They must pass.
    """
    run = subprocess.run(
        [
            sys.executable, "-P", "-m", "pytest", str(_SUITE), "-m", "core", "-k", select, "-q",
            "-x", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header",
        ],
        env=environment(PYTEST_ADDOPTS="", **changes),
        cwd=_SUITE.parents[1],
        capture_output=True,
        text=True,
        timeout=CORE_LIMIT,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, f"with {changes}:\n{run.stdout}\n{run.stderr}"
    assert " passed" in run.stdout
