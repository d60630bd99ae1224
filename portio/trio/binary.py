"""Binary files, with the interface that `trio.open_file` gives them.

What they consist of is in buffered.py; here is what programs call.

Tasks take turns: a second one that reads, writes or moves waits for the first, as
threads do with Python's files.  The positional methods need no turn, and any number of
tasks may be in them; they only see to it that pending writes come first.

Cancellation.  A cancelled read has not moved the position.  A cancelled write has taken
nothing, except when it was given more than the buffer holds: then `tell` says how far
it came.

Ctrl-C.  The methods are protected from KeyboardInterrupt, which therefore comes where a
cancellation would, and never between an operation and what is noted of it.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from operator import index
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from portio.operations import Read, Sync, Write
from portio.trio.buffered import BufferedSteps

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from portio.buffers import Buffers
    from portio.files import File
    from portio.trio.ports import TrioPort

__all__ = ["BinaryFile"]


class BinaryFile(BufferedSteps, trio.abc.AsyncResource):
    """A binary file on completion I/O.  `open_file` makes them."""

    def __init__(
        self,
        port: TrioPort,
        file: File,
        *,
        mode: str,
        buffering: int,
        owns: bool = True,
        given: bool = False,
    ) -> None:
        """`mode` is as open's, without b; `buffering` -1, 0 or the buffer's size.

        `owns` says that the descriptor is closed with the file, `given` that it was the
        program's, which may use it besides.
        """
        super().__init__(port, file, mode=mode, buffering=buffering, owns=owns, given=given)

    # ---- what it is ----

    @property
    def name(self) -> Any:
        """What it was opened by."""
        return self._file.name

    @property
    def mode(self) -> str:
        """How it was opened."""
        return f"{self._mode[0]}b{self._mode[1:]}"

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed

    def fileno(self) -> int:
        """The descriptor, on Windows the HANDLE.  ValueError when it is closed."""
        self._check_open()
        return self._file.fileno()

    def isatty(self) -> bool:
        """Whether it is a terminal; on Windows none can be opened for completion I/O."""
        number = self.fileno()
        return sys.platform != "win32" and os.isatty(number)

    def size(self) -> int:
        """How many bytes the file has; asks the system, which has no pending writes yet."""
        self._check_open()
        return self._file.size()

    def readable(self) -> bool:
        """Whether it was opened for reading."""
        self._check_open()
        return self._readable

    def writable(self) -> bool:
        """Whether it was opened for writing."""
        self._check_open()
        return self._writable

    def seekable(self) -> bool:
        """Whether it has a position that can be changed."""
        self._check_open()
        return self._has_offsets

    # ---- at an offset ----

    @enable_ki_protection
    async def read_at(self, offset: int, size: int) -> bytes:
        """Reads `size` bytes at `offset`, fewer only at the end of the file.

        Like all positional methods it does not use or change the position, and any
        number of tasks may call it at once.
        """
        buffer = bytearray(size)
        count = await self.readinto_at(offset, buffer)
        return bytes(buffer) if count == size else bytes(memoryview(buffer)[:count])

    @enable_ki_protection
    async def readinto_at(self, offset: int, buffers: Buffers) -> int:
        """Reads into a buffer, or a sequence of them; gives the number of bytes."""
        self._check_readable()
        if self._pending:
            await self.flush()
        done = await self._port.complete(Read(self._key, buffers, offset))
        if done._outcome is None:
            return done.nbytes
        count: int = self._result(done)
        return count

    @enable_ki_protection
    async def write_at(self, offset: int, buffers: Buffers) -> int:
        """Writes a buffer, or a sequence of them, at `offset`; gives the number of bytes.

        Goes to the system at once.  If it is cancelled, a part may have been written.
        """
        self._check_writable()
        if self._pending:
            await self.flush()
        try:
            self._drop_ahead()
            count: int = await self._carry_out(Write(self._key, buffers, offset))
        finally:  # what another task has read meanwhile, or is reading, may be old
            self._drop_ahead()
            self._stale = self._turns.taken
        return count

    @enable_ki_protection
    async def sync(self, *, data_only: bool = False) -> None:
        """Makes what was written durable: fsync, or with `data_only` fdatasync."""
        self._check_open()
        if self._pending:
            await self.flush()
        await self._carry_out(Sync(self._key, data_only=data_only))

    # ---- reading ----

    @enable_ki_protection
    async def read(self, size: int | None = -1, /) -> bytes:
        """Reads `size` bytes, fewer only at the end; all that is left without a size.

        An unbuffered file makes one system call and gives what that gives.
        """
        self._check_readable()
        size = _size(size)
        async with self._turns:
            return await (self._read_all() if size < 0 else self._read(size))

    @enable_ki_protection
    async def read1(self, size: int | None = -1, /) -> bytes:
        """Reads at most `size` bytes with at most one operation."""
        self._check_readable()
        size = _size(size)
        async with self._turns:
            return await self._read1(size)

    @enable_ki_protection
    async def readall(self) -> bytes:
        """Reads all that is left."""
        self._check_readable()
        async with self._turns:
            return await self._read_all()

    @enable_ki_protection
    async def readinto(self, buffer: Buffer, /) -> int:
        """Reads into a buffer; gives the number of bytes."""
        self._check_readable()
        with _writable_view(buffer) as view:
            async with self._turns:
                data = await self._read(len(view))
                view[: len(data)] = data
                return len(data)

    @enable_ki_protection
    async def readinto1(self, buffer: Buffer, /) -> int:
        """Reads into a buffer with at most one operation; gives the number of bytes."""
        self._check_readable()
        with _writable_view(buffer) as view:
            async with self._turns:
                data = await self._read1(len(view))
                view[: len(data)] = data
                return len(data)

    @enable_ki_protection
    async def readline(self, size: int | None = -1, /) -> bytes:
        """Reads up to the end of the line, and `size` bytes at most."""
        self._check_readable()
        size = _size(size)
        async with self._turns:
            return await self._read_line(size)

    @enable_ki_protection
    async def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Reads lines, until their bytes are more than `hint`."""
        self._check_readable()
        hint = _size(hint)
        async with self._turns:
            return await self._read_lines(hint)

    @enable_ki_protection
    async def peek(self, size: int = 0, /) -> bytes:  # noqa: ARG002 (as Python's)
        """Gives bytes without moving the position, with at most one operation."""
        self._check_readable()
        async with self._turns:
            await self._write_pending()
            if not self._available():
                await self._fill()
            else:
                await checkpoint()
            at = self._position - self._ahead_at
            return bytes(self._view[at : self._ahead]) if self._available() else b""

    def __aiter__(self) -> Self:
        return self

    @enable_ki_protection
    async def __anext__(self) -> bytes:
        line = await self.readline()
        if line:
            return line
        raise StopAsyncIteration

    # ---- writing ----

    @enable_ki_protection
    async def write(self, data: Buffer, /) -> int:
        """Writes everything, to the buffer first if there is one; gives its size."""
        self._check_writable()
        async with self._turns:
            return await self._write(data)

    @enable_ki_protection
    async def writelines(self, lines: Iterable[Buffer], /) -> None:
        """Writes one after the other."""
        self._check_writable()
        await checkpoint_if_cancelled()
        async with self._turns:
            for line in lines:
                await self._write(line)
        await checkpoint()

    @enable_ki_protection
    async def flush(self) -> None:
        """Hands pending writes to the system."""
        self._check_open()
        async with self._turns:
            if not await self._write_pending():
                await checkpoint()

    # ---- the position ----

    @enable_ki_protection
    async def seek(self, target: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves the position, and gives the new one."""
        self._check_seekable()
        target, whence = index(target), index(whence)
        await checkpoint()
        async with self._turns:
            return await self._seek(target, whence)

    @enable_ki_protection
    async def tell(self) -> int:
        """The position."""
        self._check_seekable()
        await checkpoint()
        self._check_open()
        if self._shares and not self._turns.taken:
            self._take_over()
        return self._position

    @enable_ki_protection
    async def truncate(self, size: int | None = None, /) -> int:
        """Makes the file `size` bytes long; without a size, as long as the position is."""
        self._check_writable()
        if size is not None and (size := index(size)) < 0:
            await checkpoint()
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        async with self._turns:
            await self._write_pending()
            if size is None:
                size = self._position
            await trio.to_thread.run_sync(self._file.truncate, size)
            self._drop_ahead()
            return size

    # ---- the end ----

    @enable_ki_protection
    async def aclose(self) -> None:
        """Writes what is pending, and closes the file, also if it is cancelled.

        Who has the turn comes first, and who still waits for it gets ValueError; so does
        a task that reads from what has no offsets, a pipe or a terminal, and might wait
        for ever.  Writing to a pipe that is full waits for the one who reads it.
        """
        if not self._closed:
            self._closing = True
            with trio.CancelScope(shield=True):
                if self._reading:
                    await self._close()  # at once, for who reads has no writes pending
                else:
                    await self._turns.take()
                    try:
                        await self._close()
                    finally:
                        self._turns.leave()
        await checkpoint()

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

    def __del__(self) -> None:
        if getattr(self, "_pending", None):
            warnings.warn(
                f"unclosed {self!r}: {len(self._pending)} bytes were not written",
                ResourceWarning,
                stacklevel=2,  # without `source`, which would keep the file itself alive
            )

    def __repr__(self) -> str:
        return f"<portio.trio.BinaryFile name={self.name!r} mode={self.mode!r}>"


def _size(size: int | None) -> int:
    """A number of bytes as Python's files take it; -1 without a limit."""
    return -1 if size is None else index(size)


def _writable_view(buffer: Buffer) -> memoryview:
    """Looked at before anything is read."""
    with memoryview(buffer) as whole:
        if whole.readonly:
            kind = type(buffer).__name__
            raise TypeError(f"a buffer that can be written to is required, not {kind!r}")
        return whole.cast("B")
