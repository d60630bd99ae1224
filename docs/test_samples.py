"""Runs every code sample of README.md and of these pages.

The samples of a page run from top to bottom, share their names, and have an
empty directory for their files.  What a page need not show, such as the client
that exercises a server, stands in an invisible-code-block.
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser

TOP = Path(__file__).parents[1]
PAGES = [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").rglob("*.md"))]


def run_commands(example: Example) -> None:
    """Run the lines of a console block that begin with a prompt."""
    for line in str(example.parsed).splitlines():
        if line.startswith("$ "):
            subprocess.run(["bash", "-euc", line[2:]], check=True, timeout=60)


SAMPLES = Sybil(
    [
        PythonCodeBlockParser(),
        CodeBlockParser(language="console", evaluator=run_commands),
        SkipParser(),
    ]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_samples(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Who starts the tests in the background may have had it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for example in SAMPLES.parse(page):
        example.evaluate()
