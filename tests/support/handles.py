"""Handles in the hands of a test: what the port is not asked to do.

A handle is what the system calls so: a descriptor on Linux, a HANDLE on Windows.
Where a function takes one it also takes an object with ``fileno()``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Protocol

if sys.platform == "win32":
    from support import win32


class HasFileno(Protocol):
    def fileno(self) -> int: ...


Handle = int | HasFileno


def number_of(handle: Handle) -> int:
    return handle if isinstance(handle, int) else handle.fileno()


if sys.platform == "win32":
    read = win32.read
    write = win32.write
    close = win32.close
    is_open = win32.is_open
    get_inheritable = os.get_handle_inheritable
    open_pipe = win32.open_pipe
    open_file = win32.open_file
    open_folder = win32.open_folder
    open_pipe_for_child = win32.open_pipe_for_child
    of_file = win32.of_file
    fill_pipe = win32.fill_pipe
    try_read = win32.try_read
    try_write = win32.try_write
    make_sparse = win32.make_sparse
else:

    def read(handle: Handle, count: int) -> bytes:
        """What there is, at most so much; waits for the first byte."""
        os.set_blocking(number_of(handle), True)
        return os.read(number_of(handle), count)

    def write(handle: Handle, data: bytes) -> int:
        """Write, and wait until it is done; how many bytes were written."""
        return os.write(number_of(handle), data)

    def close(handle: int) -> None:
        os.close(handle)

    def is_open(handle: int) -> bool:
        """Whether this number is one of an open handle now."""
        try:
            os.fstat(handle)
        except OSError:
            return False
        return True

    def get_inheritable(handle: int) -> bool:
        return os.get_inheritable(handle)

    def open_pipe(*, blocking: bool = True) -> tuple[int, int]:
        """A pipe that portio has not made, which a port can take: its ends for reading, writing."""
        return os.pipe2(0 if blocking else os.O_NONBLOCK)

    def open_pipe_for_child() -> tuple[int, int]:
        """A pipe of which a port takes the reading end, and subprocess the writing descriptor."""
        return os.pipe()

    def of_file(file: HasFileno) -> int:
        """The handle of one of Python's own files."""
        return file.fileno()

    def open_file(path: Path, mode: str = "r+") -> int:
        """A file that portio has not opened, which a port can take."""
        flags = {"r": os.O_RDONLY, "w": os.O_WRONLY, "r+": os.O_RDWR | os.O_CREAT}[mode]
        return os.open(path, flags)

    def try_read(reader: Handle, count: int) -> bytes:
        """What a pipe has now; BlockingIOError when it is empty, b"" at its end."""
        os.set_blocking(number_of(reader), False)
        return os.read(number_of(reader), count)

    def try_write(writer: Handle, data: bytes) -> int:
        """Write to a pipe that has room, BlockingIOError when it has none."""
        os.set_blocking(number_of(writer), False)
        return os.write(number_of(writer), data)

    def fill_pipe(writer: Handle) -> None:
        """Write until the pipe takes no more."""
        number = number_of(writer)
        os.set_blocking(number, False)
        try:
            while True:
                os.write(number, bytes(4096))
        except BlockingIOError:
            os.set_blocking(number, True)

    def make_sparse(handle: Handle) -> None:
        """Let what is never written of a file take no room: so it is here."""

    def open_folder(path: Path) -> int:
        return os.open(path, os.O_RDONLY)


def open_handles() -> dict[int, str]:
    """What this process has open, and what it is, to see that nothing is left behind."""
    if sys.platform == "win32":
        return win32.handles_of_io()
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:  # the descriptor of the listing itself
            pass
    return found


def unused() -> int:
    """A number that no open handle has."""
    reader, writer = open_pipe()
    close(reader)
    close(writer)
    return reader
