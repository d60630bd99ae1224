"""Scripts that need a process of their own: signals, forks, limits, exits."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

import portio
from support import control
from support.system import WINDOWS, WINE
from support.watch import LIMIT, wait_until_task_blocked

_TESTS = Path(__file__).parents[1]
_PORTIO = Path(portio.__file__).parents[1]

OWN_CONSOLE: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)
"""Creation flags of a process that alone hears the Ctrl-C that is pressed for it."""

INTERNAL_ERROR = 1359  # of Windows

KEYS = {"SIGINT": b"i", "SIGBREAK": b"b"}


def environment(**changes: str) -> dict[str, str]:
    """Our environment, in which a script finds the same portio and this support."""
    path = [str(_PORTIO), str(_TESTS), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
        **changes,
    }


def run_script(source: str, *arguments: object, limit: float = 60.0, **changes: str) -> str:
    """Run a script to its end: it must succeed.  What it wrote to standard output."""
    command = [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]
    try:
        done = subprocess.run(
            command,
            env=environment(**changes),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        pytest.fail(
            f"the script did not end within {limit:g} s\n"
            f"stdout: {_text(error.stdout)}\nstderr: {_text(error.stderr)}"
        )
    if done.returncode != 0:
        pytest.fail(
            f"the script ended with {done.returncode}\nstdout: {done.stdout}\nstderr: {done.stderr}"
        )
    return done.stdout


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


class Control:
    """The connection through which a child on Windows is told what to do."""

    RUN = "import support.control; support.control.run()"

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LIMIT)
        self._connection: socket.socket | None = None
        self.port: int = self._listener.getsockname()[1]

    def order(self, command: bytes) -> None:
        """Give an order and wait until it is carried out."""
        if self._connection is None:
            self._connection, _ = self._listener.accept()
            self._connection.settimeout(2 * LIMIT)
        self._connection.sendall(command)
        assert self._connection.recv(1) == command, "the child has ended"

    def press(self, number: int) -> None:
        """Press the keys that send this signal."""
        self.order(KEYS[signal.Signals(number).name])

    def dump(self, process: subprocess.Popen[str]) -> None:
        """Have the child show every thread's stack, and end it."""
        try:
            self.order(b"d")
        finally:
            process.kill()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._listener.close()


def _started(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    attempts = 3 if WINE else 1
    while True:
        attempts -= 1
        try:
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                bufsize=1,
                creationflags=OWN_CONSOLE,
            )
        except OSError as error:
            # Under load a process of Wine may die before it has begun.
            if getattr(error, "winerror", None) != INTERNAL_ERROR or not attempts:
                raise


class Child:
    """A script that talks with the test, line by line."""

    def __init__(self, source: str, *arguments: object, **changes: str) -> None:
        self._control = Control() if WINDOWS else None
        launcher = [sys.executable]
        if self._control is not None:
            launcher += ["-c", Control.RUN]
            changes = {control.VARIABLE: str(self._control.port), **changes}
        self.process = _started(
            [*launcher, "-c", textwrap.dedent(source), *map(str, arguments)], environment(**changes)
        )
        self.pid = self.process.pid
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_lines, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def line(self, limit: float = LIMIT) -> str:
        """The next line that the child writes."""
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            self._stop_with_dump()
            pytest.fail(f"no word from the child within {limit:g} s; stderr: {self.errors()}")
        if line is None:
            pytest.fail(f"the child ended early; stderr: {self.errors()}")
        return line

    def speaks_within(self, seconds: float) -> bool:
        """Is there a line, or the end, before so many seconds have passed?"""
        deadline = time.monotonic() + seconds
        while self._lines.empty():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.001)
        return True

    def expect(self, wanted: str) -> None:
        assert self.line() == wanted

    def say(self, line: str) -> None:
        """Write a line to the child's standard input."""
        self.write(line + "\n")

    def write(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send a signal; on Windows, press Ctrl-C or Ctrl-Break."""
        if self._control is None:
            self.process.send_signal(number)
        else:
            self._control.press(number)

    def wait_until_blocked(self) -> None:
        """Wait until the child's main thread sleeps in the call it is in."""
        if self._control is None:
            wait_until_task_blocked(self.pid, self.pid)
        else:
            self._control.order(b"w")

    def finish(self) -> None:
        """The child must end by itself and with success."""
        try:
            code = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self._stop_with_dump()
            pytest.fail(f"the child did not end within {LIMIT:g} s; stderr: {self.errors()}")
        assert code == 0, f"the child ended with {code}; stderr: {self.errors()}"

    def errors(self) -> str:
        self._readers[1].join(LIMIT if self.process.poll() is not None else 0.1)
        return "".join(self._errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        if self._control is not None:
            self._control.close()
        for reader in self._readers:
            reader.join(LIMIT)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass

    def _stop_with_dump(self) -> None:
        if self.process.poll() is not None:
            return
        if self._control is None:
            self.process.send_signal(signal.SIGABRT)  # faulthandler shows the stacks
        else:
            self._control.dump(self.process)
        self.process.wait(LIMIT)

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._errors.append(line)
