"""Memory for receiving, lent for as long as a receive is pending.

A readiness loop asks for memory when there is something to read; a pending receive
needs it before.  So that ten thousand idle connections do not cost ten thousand times
64 KiB, the memory comes from anonymous mappings, of which the system provides only the
pages that have been written to, and the mappings are used again, the last one first.
"""

from __future__ import annotations

import mmap
import sys

__all__ = ["SIZE", "Lender"]

#: Bytes of one piece, and what a receive asks for when nobody says how much.
SIZE = 64 * 1024
MOST_IDLE = 256  # pieces that are kept for later


class Lender:
    """Lends pieces of memory of `SIZE` bytes."""

    __slots__ = ("_idle",)

    def __init__(self) -> None:
        #: Pieces that nobody uses.
        self._idle: list[memoryview] = []

    def lend(self) -> memoryview:
        """A piece, with whatever is in it."""
        try:
            return self._idle.pop()
        except IndexError:
            return _new_piece()

    def take_back(self, piece: memoryview) -> None:
        """Nobody uses the piece any more."""
        if len(self._idle) < MOST_IDLE:
            self._idle.append(piece)


def _new_piece() -> memoryview:
    try:
        if sys.platform == "win32":
            return memoryview(mmap.mmap(-1, SIZE))
        return memoryview(mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except OSError:  # the system has a limit on the number of mappings
        return memoryview(bytearray(SIZE))
