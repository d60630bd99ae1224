"""The other way in which completions reach a run holds the contract as well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from portio.trio import TrioPort
from portio.trio.wakes import VARIABLE
from support.children import environment
from support.system import WINDOWS
from support.trio_runs import in_trio

TESTS = Path(__file__).parents[1]


@pytest.mark.skipif(WINDOWS, reason="it is the usual way there, and the driver `trio` proves it")
@pytest.mark.timeout(400)
def test_the_core_of_the_contract_with_a_waiting_thread(backend: str) -> None:
    """As on Windows, where it is the only one."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-m", "core", "-p", "no:cacheprovider"),
            *("-k", "trio", str(TESTS / "conformance")),
        ],
        cwd=TESTS.parent,
        env=environment(**{VARIABLE: "thread", "PORTIO_TEST_BACKENDS": backend}),
        capture_output=True,
        text=True,
        timeout=350,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@in_trio
async def test_a_switch_with_another_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "magic")
    with pytest.raises(ValueError, match="descriptor or thread"):
        TrioPort()
