"""Running ``python -m portio`` (or another program) and looking at what it leaves."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support import control as controlled
from support.children import OWN_CONSOLE, Control, environment
from support.system import WINDOWS
from support.watch import LIMIT

PORTIO = [sys.executable, "-m", "portio"]

STOP = signal.SIGINT if WINDOWS else signal.SIGTERM
"""What a server is asked to stop with."""

# Ctrl-C works as at a terminal, however the tests themselves have been started.
LAUNCHER = """
import os, resource, signal, sys
for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:  # nohup ignores one of them
    signal.signal(number, signal.SIG_DFL)
{before}
os.execvp(sys.argv[1], sys.argv[1:])
"""


@dataclass
class Result:
    """How a command ended."""

    status: int
    output: str
    errors: str

    def error_line(self) -> str:
        """Its complaint: one line, of no traceback, with a failing exit status."""
        assert self.status == 1, self
        assert self.output == "", self
        assert self.errors.endswith("\n"), self
        assert self.errors.count("\n") == 1, self
        return self.errors.rstrip("\n")


def run(
    *arguments: object,
    program: list[str] = PORTIO,
    before: str = "",
    **variables: str,
) -> Result:
    """Run a command to its end."""
    with start(*arguments, program=program, before=before, **variables) as command:
        return command.finish()


class Command:
    """A command that is running."""

    def __init__(self, process: subprocess.Popen[str], control: Control | None = None) -> None:
        self.process = process
        self._control = control
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._errors: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=_read, args=args, daemon=True)
            for args in ((process.stdout, self._lines), (process.stderr, self._errors))
        ]
        for reader in self._readers:
            reader.start()

    def line(self) -> str:
        """The next line of its standard output."""
        return self._next(self._lines, "standard output")

    def error_line(self) -> str:
        """The next line of its standard error."""
        return self._next(self._errors, "standard error")

    def address(self) -> tuple[str, int]:
        """Where a server says that it listens, on its first line."""
        words, _, port = self.line().rpartition(":")
        assert words.startswith("listening on ")
        return words.removeprefix("listening on ").strip("[]"), int(port)

    def signal(self, number: int) -> None:
        """Send a signal; on Windows, press Ctrl-C or Ctrl-Break."""
        if self._control is None:
            self.process.send_signal(number)
        else:
            self._control.press(number)

    def finish(self, limit: float = 100.0) -> Result:
        """Wait for its end."""
        try:
            status = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self._abort(f"still running after {limit:g} s")
        self.join()
        return Result(status, _drain(self._lines), _drain(self._errors))

    def join(self) -> None:
        """Wait until everything that it wrote has been read."""
        for reader in self._readers:
            reader.join(LIMIT)

    def _next(self, lines: queue.SimpleQueue[str], name: str) -> str:
        try:
            line = lines.get(timeout=LIMIT)
        except queue.Empty:
            self._abort(f"no line on {name} within {LIMIT:g} s")
        if not line:
            pytest.fail(f"ended without another line on {name}: {self.finish()}")
        return line.rstrip("\n")

    def _abort(self, reason: str) -> None:
        if self._control is None:
            self.process.send_signal(signal.SIGABRT)  # faulthandler shows the stacks
        else:
            self._control.dump(self.process)
        self.process.wait(LIMIT)
        self.join()
        pytest.fail(f"{reason}; standard error:\n{_drain(self._errors)}")


@contextlib.contextmanager
def start(
    *arguments: object,
    program: list[str] = PORTIO,
    before: str = "",
    **variables: str,
) -> Iterator[Command]:
    """Start a command; it is killed at the end of the block if it is still running.

    `before` is carried out first, in the process that becomes the command (on Linux).
    """
    control = None
    launcher = [sys.executable, "-c", LAUNCHER.format(before=before), *program]
    if WINDOWS:
        assert not before
        assert program[0] == sys.executable
        control = Control()
        variables = {controlled.VARIABLE: str(control.port), **variables}
        launcher = [sys.executable, "-c", Control.RUN, *program[1:]]
    with subprocess.Popen(
        [*launcher, *map(str, arguments)],
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        creationflags=OWN_CONSOLE,
    ) as process:
        command = Command(process, control)
        try:
            yield command
        finally:
            process.kill()
            command.join()
            if control is not None:
                control.close()


def said(name: str, winerror: int) -> str:
    """What the system says of an error, which has a name on Linux and a number on Windows."""
    if sys.platform == "win32":
        text = ctypes.FormatError(winerror).rstrip(".")
        return text if "no description" not in text else os.strerror(winerror)  # Wine's
    return os.strerror(getattr(errno, name))


def receive(client: socket.socket, nbytes: int) -> bytes:
    """So many bytes from a connection, or all that come before its end."""
    received = bytearray()
    while len(received) < nbytes and (piece := client.recv(nbytes - len(received))):
        received += piece
    return bytes(received)


def _read(stream: Iterator[str], lines: queue.SimpleQueue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def _drain(lines: queue.SimpleQueue[str]) -> str:
    parts = []
    with contextlib.suppress(queue.Empty):
        while True:
            parts.append(lines.get_nowait())
    return "".join(parts)
