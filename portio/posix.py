"""The system's part of files, descriptors and errors, for POSIX: see system.py."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from typing import Any

__all__ = [
    "HAS_DIRECT",
    "KERNEL_KEEPS_OWNERS",
    "close",
    "descriptor_getter",
    "explain",
    "file_size",
    "identify",
    "keep_code",
    "open_file",
    "open_flags",
    "open_pipe",
    "truncate",
    "usable_processors",
]

_DIRECT: int = getattr(os, "O_DIRECT", 0)
#: Whether files can be opened for transfers past the cache.
HAS_DIRECT = _DIRECT != 0
#: Whether the system itself refuses a handle that belongs to a port already.
KERNEL_KEEPS_OWNERS = False

_MODES = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "x+": os.O_RDWR | os.O_CREAT | os.O_EXCL,
}
_ALWAYS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)


def open_flags(mode: str) -> int:
    """The flags of open(2) for one of the modes of `portio.open`."""
    return _MODES[mode] | _ALWAYS


def open_file(path: Any, mode: str, permissions: int, *, direct: bool) -> int:
    """The descriptor of a file, opened in one of the modes of `portio.open`."""
    flags = open_flags(mode) | (_DIRECT if direct else 0)
    descriptor = os.open(path, flags, permissions)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return descriptor


def open_pipe() -> tuple[int, int]:
    """The descriptors of a new pipe's reading and writing end."""
    return os.pipe()


def close(descriptor: int) -> None:
    """Closes a file, a pipe or whatever is not a socket."""
    os.close(descriptor)


def file_size(descriptor: int) -> int:
    """The size of a file or a block device in bytes."""
    status = os.fstat(descriptor)
    if stat.S_ISBLK(status.st_mode):
        return os.lseek(descriptor, 0, os.SEEK_END)
    return status.st_size


def truncate(descriptor: int, size: int) -> None:
    """Makes a file `size` bytes long."""
    os.ftruncate(descriptor, size)


def descriptor_getter(handle: Any) -> Callable[[], int]:
    """A function that gives the descriptor of an object with ``fileno()``."""
    getter: Callable[[], int] = handle.fileno
    return getter


def identify(descriptor: int) -> tuple[int, int, bool] | None:
    """Device, inode, and whether it is a socket; None when it cannot be told."""
    try:
        status = os.fstat(descriptor)
    except (OSError, OverflowError):
        return None
    return status.st_dev, status.st_ino, stat.S_ISSOCK(status.st_mode)


def explain(code: int) -> tuple[int, str]:
    """The errno and the text of an error of the system."""
    return code, os.strerror(code)


def keep_code(error: OSError, code: int) -> None:
    """Keeps the system's own number with the error; here that is the errno."""


def usable_processors() -> int:
    """How many processors this process may use."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1
