"""The files that are read and copied."""

from __future__ import annotations

import os
from pathlib import Path

MIB = 1 << 20


def write(path: Path, size: int) -> None:
    """Write a file of whole MiB to the disk; it is in the page cache afterwards."""
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


def evict(path: Path) -> None:
    """Have the system forget the file's pages, which were written to the disk before."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(path: Path) -> None:
    """Have the whole file in the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(MIB):
            pass
