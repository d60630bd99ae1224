"""Running the programs of this folder, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.children import Child, environment

PROGRAMS = Path(__file__).parent / "programs"
SKIP = 77  # the exit status of a program that cannot be run here


def command(program: str, *arguments: object) -> list[str]:
    """The command line for one function of a program."""
    return [sys.executable, str(PROGRAMS / f"{program}.py"), *map(str, arguments)]


@dataclass
class Result:
    """What a program has written."""

    lines: list[str]
    errors: str


def run(program: str, *arguments: object, limit: float = 60.0, **changes: str) -> Result:
    """Run a function of a program; it must end with success, or skip the test."""
    try:
        done = subprocess.run(
            command(program, *arguments),
            env=environment(**changes),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        pytest.fail(
            f"no end within {limit:g} s\nstdout: {error.stdout!r}\nstderr: {error.stderr!r}"
        )
    if done.returncode == SKIP:
        pytest.skip(done.stdout.strip())
    if done.returncode != 0:
        pytest.fail(f"ended with {done.returncode}\n{done.stdout}\nstderr:\n{done.stderr}")
    return Result(done.stdout.splitlines(), done.stderr)


def talk_to(program: str, *arguments: object, **changes: str) -> Child:
    """Start a function of a program, and talk with it line by line."""
    path = str(PROGRAMS / f"{program}.py")
    source = f"import runpy; runpy.run_path({path!r}, None, '__main__')"
    return Child(source, *arguments, **changes)
