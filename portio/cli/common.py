"""What the commands share: types of arguments, errors in one line, signals."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import portio
from portio import system

UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


class CommandError(Exception):
    """The command cannot go on; the text says why, in one line."""


class Stopped(Exception):  # noqa: N818 - it is no error
    """A signal asked the command to stop, and it has left nothing behind."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


# Arguments


def size(text: str) -> int:
    """A number of bytes, at least 1: ``4096``, ``64KiB``, ``1M``."""
    match = re.fullmatch(r"(\d+) ?([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 4096, 64KiB or 1MiB")
    return int(match[1]) << UNITS[match[2]]


def count(text: str) -> int:
    """A whole number, at least 1."""
    if not re.fullmatch(r"\d+", text.strip()) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def port_number(text: str) -> int:
    """A TCP port; 0 lets the system choose one."""
    if not re.fullmatch(r"\d+", text.strip()) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number from 0 to 65535")
    return int(text)


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add --backend."""
    parser.add_argument(
        "--backend",
        metavar="B",
        help="the backend to use (default: PORTIO_BACKEND, else the best that works here)",
    )


def open_port(backend: str | None, *, thread_bound: bool) -> portio.Port:
    """A port for a command; a thread-bound one submits and waits in one call."""
    try:
        return portio.Port(backend=backend, thread_bound=thread_bound, lazy_submit=thread_bound)
    except (ValueError, portio.NotSupportedError) as error:
        raise CommandError(str(error)) from error


# Errors


def shown(path: str) -> str:
    """A path as it is, or quoted where it would break the line."""
    return path if path.isprintable() and path else ascii(path)


def reason(error: OSError) -> str:
    """What the system said, without the name of the call or the file."""
    if winerror := getattr(error, "winerror", None):
        return system.explain(winerror)[1]
    if error.errno is not None and error.errno > 0 and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error)


def describe(error: BaseException) -> str:
    """An error in one line."""
    match error:
        case MemoryError():
            return "not enough memory"
        case OSError(filename=str(path)):
            return f"{shown(path)}: {reason(error)}"
        case OSError():
            return reason(error)
        case _:
            return " ".join(str(error).split())


# Signals


@contextmanager
def noted_signals(*names: str) -> Iterator[list[int]]:
    """Within the block, signals are appended to a list and interrupt nothing.

    Names that this system does not know are passed over, and so are signals
    that the parent process has chosen to ignore (``nohup``).
    """
    noted: list[int] = []
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    former = {
        number: signal.signal(number, lambda received, _: noted.append(received))
        for number in numbers
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    try:
        yield noted
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
