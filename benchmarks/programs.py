"""Programs in processes of their own: how they are made, started and bounded in time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
SOURCES = HERE / "peers"
BUILD = HERE / "build"
COMPILER = os.environ.get("CC", "cc")
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror"]

#: Every program ends itself after so many seconds, whatever happens to the harness.
SECONDS = 60


#: What one repetition of a subject measured, by metric; times in seconds, memory in bytes.
Sample = dict[str, float]


class UnavailableError(Exception):
    """A program has failed, or cannot be measured on this system; the text says why."""


@dataclass(frozen=True)
class Program:
    """A program and the options that make a subject of it."""

    name: str  # a file of peers without its .c, or a module
    options: tuple[str, ...] = ()

    @property
    def is_c(self) -> bool:
        """Tell whether the program has to be compiled."""
        return (SOURCES / f"{self.name}.c").exists()

    def command(self, *arguments: object) -> list[str]:
        """Give the command line of the program with these arguments."""
        start = [compiled(self.name)] if self.is_c else [sys.executable, "-m", self.name]
        return [*map(str, [*start, *self.options, *arguments]), str(SECONDS)]


def compiled(name: str) -> Path:
    """Give the executable of a C program, made anew when a source is newer."""
    source, executable = SOURCES / f"{name}.c", BUILD / name
    newest = max(path.stat().st_mtime for path in [source, *SOURCES.glob("*.h")])
    if executable.exists() and executable.stat().st_mtime >= newest:
        return executable
    BUILD.mkdir(exist_ok=True)
    # Beside the others and then in place, so that two harnesses do not meet.
    with tempfile.TemporaryDirectory(dir=BUILD) as directory:
        fresh = Path(directory) / name
        subprocess.run([COMPILER, *FLAGS, str(source), "-o", str(fresh)], check=True)
        fresh.replace(executable)
    return executable


def assign_processors(*, together: bool) -> tuple[set[int], set[int]]:
    """Give the processors of the server, and those of the load.

    The load has one for itself, so that the server is measured as it works under load.  But
    with one connection in use the two take turns, and on two processors each turn would begin
    with waking an idle one, which on a virtual machine costs ten times the echo.
    """
    usable = sorted(os.sched_getaffinity(0))
    load = {usable[-1]}
    return (load if together or len(usable) == 1 else set(usable) - load), load


def run(command: list[str], processors: set[int] | None = None) -> Sample:
    """Run a program that measures itself, and give the JSON of its last line."""
    try:
        with _on(processors):
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=SECONDS + 10
            )
    except subprocess.TimeoutExpired:
        message = f"{command[0]}: still running after {SECONDS + 10} s"
        raise UnavailableError(message) from None
    if done.returncode != 0:
        raise UnavailableError(_last_words(done.stderr, done.returncode))
    sample: Sample = json.loads(done.stdout.splitlines()[-1])
    return sample


@dataclass(frozen=True)
class Server:
    """A running server on the loopback interface."""

    pid: int
    port: int


@contextlib.contextmanager
def serving(command: list[str], processors: set[int] | None) -> Iterator[Server]:
    """Start a server, wait for its ``listening on HOST:PORT``, and stop it in the end."""
    with tempfile.TemporaryFile("w+") as errors:
        with _on(processors):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                process.kill()
                raise UnavailableError(_words_of(process, errors))
            try:
                yield Server(process.pid, int(line.rpartition(":")[2]))
            except UnavailableError as error:
                if process.poll() is None:
                    raise
                message = f"{error}; the server: {_words_of(process, errors)}"
                raise UnavailableError(message) from None
        finally:
            process.kill()
            process.communicate()


def _words_of(process: subprocess.Popen[str], errors: IO[str]) -> str:
    status = process.wait()
    errors.seek(0)
    return _last_words(errors.read(), status)


def _last_words(errors: str, status: int) -> str:
    lines = errors.strip().splitlines()
    return lines[-1] if lines else f"ended with status {status}"


@contextlib.contextmanager
def _on(processors: set[int] | None) -> Iterator[None]:
    """Have the processes that are started inside run on these processors; None: on any."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if processors is None else processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
