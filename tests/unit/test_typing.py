"""The files of tests/typing say what a type checker must see; mypy checks them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_types_as_a_program_sees_them(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    found = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores"),
            *("--enable-error-code", "exhaustive-match", "--cache-dir", str(tmp_path)),
            str(ROOT / "tests" / "typing"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
