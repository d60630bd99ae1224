"""Text files: characters on top of a `BinaryFile`, by the rules of `io.TextIOWrapper`.

What they consist of is in decoded.py; here is what programs call.

Cancellation: a read that is cancelled has read nothing.  See binary.py for writes; what
a line-buffered write was given may be taken already, and wait in the buffer, when handing
it to the system is cancelled.
"""

from __future__ import annotations

import io
import os
from operator import index
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from portio.trio.decoded import TextSteps

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from portio.trio.binary import BinaryFile

__all__ = ["TextFile"]


class TextFile(TextSteps, trio.abc.AsyncResource):
    """A text file on completion I/O.  `open_file` makes them."""

    # ---- what it is ----

    @property
    def buffer(self) -> BinaryFile:
        """The binary file below.  Use one of the two at a time."""
        return self._buffer

    @property
    def name(self) -> Any:
        """What it was opened by."""
        return self._buffer.name

    @property
    def mode(self) -> str:
        """How it was opened."""
        return self._mode

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._buffer.closed

    @property
    def encoding(self) -> str:
        """The name of the encoding."""
        return self._encoding

    @property
    def errors(self) -> str:
        """How errors of the encoding are treated."""
        return self._errors

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        """The ends of lines that were seen so far, if they are translated."""
        newlines: str | tuple[str, ...] | None = getattr(self._decoder, "newlines", None)
        return newlines

    @property
    def line_buffering(self) -> bool:
        """Whether every line is handed to the system."""
        return self._line_buffering

    def fileno(self) -> int:
        """The descriptor, on Windows the HANDLE.  ValueError when it is closed."""
        return self._buffer.fileno()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._buffer.isatty()

    def readable(self) -> bool:
        """Whether it was opened for reading."""
        return self._buffer.readable()

    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return self._buffer.writable()

    def seekable(self) -> bool:
        """Whether it has a position that can be changed."""
        return self._buffer.seekable()

    # ---- reading ----

    @enable_ki_protection
    async def read(self, size: int | None = -1, /) -> str:
        """Reads `size` characters, fewer only at the end; all that is left without a size."""
        self._buffer._check_readable()
        size = -1 if size is None else index(size)
        async with self._turns:
            return await (self._read_all() if size < 0 else self._read(size))

    @enable_ki_protection
    async def readline(self, size: int | None = -1, /) -> str:
        """Reads up to the end of the line, and `size` characters at most."""
        self._buffer._check_readable()
        size = -1 if size is None else index(size)
        async with self._turns:
            return await self._read_line(size)

    @enable_ki_protection
    async def readlines(self, hint: int | None = -1, /) -> list[str]:
        """Reads lines, until they have more than `hint` characters."""
        self._buffer._check_readable()
        hint = -1 if hint is None else index(hint)
        async with self._turns:
            return await self._read_lines(hint)

    def __aiter__(self) -> Self:
        return self

    @enable_ki_protection
    async def __anext__(self) -> str:
        line = await self.readline()
        if line:
            return line
        raise StopAsyncIteration

    # ---- writing ----

    @enable_ki_protection
    async def write(self, text: str, /) -> int:
        """Writes everything, to the buffer first; gives the number of characters."""
        self._buffer._check_writable()
        async with self._turns:
            return await self._write(text)

    @enable_ki_protection
    async def writelines(self, lines: Iterable[str], /) -> None:
        """Writes one after the other."""
        self._buffer._check_writable()
        await checkpoint_if_cancelled()
        async with self._turns:
            for line in lines:
                await self._write(line)
        await checkpoint()

    @enable_ki_protection
    async def flush(self) -> None:
        """Hands pending writes to the system."""
        await self._buffer.flush()

    # ---- the position ----

    @enable_ki_protection
    async def seek(self, target: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves to a position that `tell` gave, to the beginning, or to the end."""
        self._buffer._check_seekable()
        target = index(target)
        async with self._turns:
            if whence == os.SEEK_CUR:
                if target:
                    raise io.UnsupportedOperation("can't do nonzero cur-relative seeks")
                target = self._tell()
            elif whence == os.SEEK_END:
                if target:
                    raise io.UnsupportedOperation("can't do nonzero end-relative seeks")
                target = await self._buffer.seek(0, os.SEEK_END)
            elif whence != os.SEEK_SET:
                raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
            if target < 0:
                raise ValueError(f"negative seek position {target}")
            await self._buffer.flush()
            await self._seek(target)
            return target

    @enable_ki_protection
    async def tell(self) -> int:
        """The position, for `seek`."""
        self._buffer._check_seekable()
        await checkpoint()
        return self._tell()

    @enable_ki_protection
    async def truncate(self, size: int | None = None, /) -> int:
        """Makes the file `size` bytes long; without a size, as long as the position is."""
        self._buffer._check_writable()
        async with self._turns:
            if self._snapshot is not None and self._buffer._has_offsets:
                await self._forget_decoded()  # the file may not have it any more
            return await self._buffer.truncate(size)

    # ---- the end ----

    @enable_ki_protection
    async def aclose(self) -> None:
        """Writes what is pending, and closes the file, also if it is cancelled."""
        await self._buffer.aclose()

    @enable_ki_protection
    async def __aenter__(self) -> Self:
        return self

    @enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return (
            f"<portio.trio.TextFile name={self.name!r} mode={self.mode!r} "
            f"encoding={self.encoding!r}>"
        )
