"""The benchmarks still run; what they measure is not looked at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import backends

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the peers are written for Linux"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="the peers need a C compiler"),
]


@pytest.fixture
def source_tree(tmp_path: Path) -> Path:
    """A directory with nothing but the benchmarks: portio comes from where it is installed."""
    (tmp_path / "benchmarks").symlink_to(BENCHMARKS, target_is_directory=True)
    return tmp_path


CASES = [
    "echo/50x64B",
    "threads/50x64B",
    "accepts/burst",
    "idle/10000",
    "reads/random-32",
    "files/copy-cold",
    "posts/round-trip",
]


@pytest.mark.parametrize("case", CASES)
def test_quick_run(source_tree: Path, case: str) -> None:
    file = source_tree / "results.json"
    path = os.pathsep.join(filter(None, [str(source_tree), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "--quick", f"--only={case}", f"--json={file}"),
            *("--subject=portio", "--subject=C epoll", "--subject=queue", "--subject=dd"),
        ],
        env={**os.environ, "PYTHONPATH": path},
        cwd=source_tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    work, _, name = case.partition("/")
    measured = json.loads(file.read_text())["works"][work][name]
    assert not measured["failed"]
    for backend in backends.selected():
        assert any(backend in subject for subject in measured["subjects"])
    assert measured["title"] in done.stdout
    assert "## Goals" in done.stdout
