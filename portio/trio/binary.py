"""Binary files, with the interface that `trio.open_file` gives them.

A file is read and written at offsets; what the classic interface has on top of that, a
position and a buffer, is kept here.  At any time there is at most one of

- *read-ahead*: bytes of the file from `_ahead_at` on, `_ahead` of them in `_memory`;
- *pending writes*: `_pending`, which belong at `_pending_at`, not in the file yet.

The position is a number of ours, `_position`; the system's is not used, except that a
pipe or a terminal has no other.  Reads in sequence are ever larger, up to 128 KiB; a
read elsewhere begins with 8 KiB again.

Tasks take turns: a second one that reads, writes or moves waits for the first, as
threads do with Python's files.  The positional methods need no turn, and any number of
tasks may be in them; they only see to it that pending writes come first.

Cancellation.  A cancelled read has not moved the position.  A cancelled write has taken
nothing, except when it was given more than the buffer holds: then `tell` says how far
it came.
"""

from __future__ import annotations

import errno
import io
import os
import warnings
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from portio.completion import Completion
from portio.errors import OperationCancelledError
from portio.operations import Read, Sync, Write, numbers
from portio.trio.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from portio.buffers import Buffers
    from portio.files import File
    from portio.trio.ports import TrioPort

__all__ = ["BinaryFile", "lines_of"]

LEAST_AHEAD = 8 * 1024
MOST_AHEAD = 128 * 1024
WRITE_BUFFER = 64 * 1024


class BinaryFile(trio.abc.AsyncResource):
    """A binary file on completion I/O.  `open_file` makes them."""

    def __init__(
        self, port: TrioPort, file: File, *, mode: str, buffering: int, owns: bool
    ) -> None:
        """`mode` is as open's, without b; `buffering` -1, 0 or the buffer's size."""
        self._port = port
        self._file = file
        self._mode = mode
        self._owns = owns  # the descriptor is ours to close
        self._readable = "r" in mode or "+" in mode
        self._writable = "r" not in mode or "+" in mode
        self._appends = "a" in mode
        self._buffered = buffering != 0
        self._ahead_most = buffering if buffering > 1 else MOST_AHEAD
        self._ahead_least = min(self._ahead_most, LEAST_AHEAD)
        self._pending_most = buffering if buffering > 1 else WRITE_BUFFER
        self._key = port.associate(file)
        self._has_offsets = bool(self._key._fits & numbers.FILE)
        self._position = 0
        self._memory = bytearray()
        self._view = memoryview(self._memory)
        self._ahead_size = 0  # what was asked for the last time
        self._ahead = 0
        self._ahead_at = 0
        self._pending = bytearray()
        self._pending_at = 0
        self._closed = False
        self._turns = Turns()
        if self._has_offsets:
            self._position = os.lseek(
                file.fileno(), 0, os.SEEK_END if self._appends else os.SEEK_CUR
            )

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
        """The descriptor.  ValueError when it is closed."""
        self._check_open()
        return self._file.fileno()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self.fileno())

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

    async def read_at(self, offset: int, size: int) -> bytes:
        """Reads `size` bytes at `offset`, fewer only at the end of the file.

        Like all positional methods it does not use or change the position, and any
        number of tasks may call it at once.
        """
        buffer = bytearray(size)
        count = await self.readinto_at(offset, buffer)
        return bytes(buffer) if count == size else bytes(memoryview(buffer)[:count])

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

    async def write_at(self, offset: int, buffers: Buffers) -> int:
        """Writes a buffer, or a sequence of them, at `offset`; gives the number of bytes.

        Goes to the system at once.  If it is cancelled, a part may have been written.
        """
        self._check_writable()
        if self._pending:
            await self.flush()
        self._ahead = 0
        count: int = await self._carry_out(Write(self._key, buffers, offset))
        self._ahead = 0  # what another task has read meanwhile may be old
        return count

    async def sync(self, *, data_only: bool = False) -> None:
        """Makes what was written durable: fsync, or with `data_only` fdatasync."""
        self._check_open()
        if self._pending:
            await self.flush()
        await self._carry_out(Sync(self._key, data_only=data_only))

    # ---- reading ----

    async def read(self, size: int | None = -1, /) -> bytes:
        """Reads `size` bytes, fewer only at the end; all that is left without a size.

        An unbuffered file makes one system call and gives what that gives.
        """
        self._check_readable()
        if size is None or size < 0:
            return await self.readall()
        async with self._turns:
            return await self._read(size)

    async def read1(self, size: int | None = -1, /) -> bytes:
        """Reads at most `size` bytes with at most one operation."""
        self._check_readable()
        async with self._turns:
            return await self._read1(-1 if size is None else size)

    async def readall(self) -> bytes:
        """Reads all that is left."""
        self._check_readable()
        async with self._turns:
            return await self._read_all()

    async def readinto(self, buffer: Buffer, /) -> int:
        """Reads into a buffer; gives the number of bytes."""
        self._check_readable()
        async with self._turns:
            view = memoryview(buffer).cast("B")
            data = await self._read(len(view))
            view[: len(data)] = data
            return len(data)

    async def readinto1(self, buffer: Buffer, /) -> int:
        """Reads into a buffer with at most one operation; gives the number of bytes."""
        self._check_readable()
        async with self._turns:
            view = memoryview(buffer).cast("B")
            data = await self._read1(len(view))
            view[: len(data)] = data
            return len(data)

    async def readline(self, size: int | None = -1, /) -> bytes:
        """Reads up to the end of the line, and `size` bytes at most."""
        self._check_readable()
        async with self._turns:
            return await self._read_line(-1 if size is None else size)

    async def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Reads lines, until their bytes are more than `hint`."""
        return [line async for line in lines_of(self, hint)]

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

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if line:
            return line
        raise StopAsyncIteration

    # ---- writing ----

    async def write(self, data: Buffer, /) -> int:
        """Writes everything, to the buffer first if there is one; gives its size."""
        self._check_writable()
        async with self._turns:
            return await self._write(data)

    async def writelines(self, lines: Iterable[Buffer], /) -> None:
        """Writes one after the other."""
        self._check_writable()
        await checkpoint_if_cancelled()
        async with self._turns:
            for line in lines:
                await self._write(line)
        await checkpoint()

    async def flush(self) -> None:
        """Hands pending writes to the system."""
        self._check_open()
        async with self._turns:
            if not await self._write_pending():
                await checkpoint()

    # ---- the position ----

    async def seek(self, target: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves the position, and gives the new one."""
        self._check_seekable()
        await checkpoint()
        async with self._turns:
            return await self._seek(target, whence)

    async def tell(self) -> int:
        """The position."""
        self._check_seekable()
        await checkpoint()
        return self._position

    async def truncate(self, size: int | None = None, /) -> int:
        """Makes the file `size` bytes long; without a size, as long as the position is."""
        self._check_writable()
        async with self._turns:
            await self._write_pending()
            if size is None:
                size = self._position
            await trio.to_thread.run_sync(self._file.truncate, size)
            self._ahead = 0
            return size

    # ---- the end ----

    async def aclose(self) -> None:
        """Writes what is pending, and closes the file, also if it is cancelled."""
        if not self._closed:
            with trio.CancelScope(shield=True):
                if self._has_offsets:
                    async with self._turns:
                        await self._close()
                else:  # others may wait there for ever
                    await self._close()
        await checkpoint()

    async def _close(self) -> None:
        if self._closed:
            return
        try:
            await self._write_pending()
        finally:
            self._closed = True
            self._pending.clear()
            if self._owns:
                self._port.close_key(self._key)
            else:
                self._port.port.disassociate(self._key)
                self._file.surrender()

    async def __aenter__(self) -> Self:
        return self

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

    # ---- what may be done ----

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("I/O operation on closed file")

    def _check_readable(self) -> None:
        self._check_open()
        if not self._readable:
            raise io.UnsupportedOperation("not readable")

    def _check_writable(self) -> None:
        self._check_open()
        if not self._writable:
            raise io.UnsupportedOperation("not writable")

    def _check_seekable(self) -> None:
        self._check_open()
        if not self._has_offsets:
            raise io.UnsupportedOperation("file or stream is not seekable")

    # ---- steps, in turn ----

    async def _carry_out(self, operation: Read | Write | Sync) -> Any:
        self._check_open()  # it may have been closed while we waited for our turn
        done: Completion[Any] = await self._port.complete(operation)
        return self._result(done)

    def _result(self, done: Completion[Any]) -> Any:
        if isinstance(done.error, OperationCancelledError):
            raise ValueError("the file was closed by another task")  # noqa: TRY004
        return done.result()

    def _available(self) -> int:
        """Bytes of the read-ahead from the position on."""
        at = self._position - self._ahead_at
        return self._ahead - at if 0 <= at < self._ahead else 0

    def _take(self, size: int) -> bytes:
        """Bytes of the read-ahead, as many as there are."""
        at = self._position - self._ahead_at
        end = min(at + size, self._ahead)
        self._position += end - at
        return bytes(self._view[at:end])

    async def _fill(self) -> int:
        """Reads ahead from the position on, where nothing is read ahead yet."""
        self._check_open()
        in_sequence = self._ahead and self._position == self._ahead_at + self._ahead
        size = min(2 * self._ahead_size, self._ahead_most) if in_sequence else self._ahead_least
        self._ahead = 0
        self._ahead_size = size
        if size > len(self._memory):
            self._memory = bytearray(size)
            self._view = memoryview(self._memory)
        count: int = await self._carry_out(Read(self._key, self._view[:size], self._position))
        self._ahead_at = self._position
        self._ahead = count
        return count

    async def _read(self, size: int) -> bytes:
        await self._write_pending()
        if size == 0:
            await checkpoint()
            return b""
        if not self._buffered:
            return await self._read_directly(size)
        if self._available() >= size:
            await checkpoint()
            return self._take(size)
        return await self._gather(size)

    async def _gather(self, size: int) -> bytes:
        """Reads until there are `size` bytes, or the end."""
        begin = self._position
        pieces = []
        left = size
        try:
            while left > 0:
                if available := self._available():
                    piece = self._take(min(left, available))
                elif left >= self._ahead_most:
                    piece = await self._read_directly(left)
                else:
                    await self._fill()
                    piece = self._take(left) if self._available() else b""
                if not piece:
                    break
                pieces.append(piece)
                left -= len(piece)
        except BaseException:
            self._put_back(begin, pieces)
            raise
        return b"".join(pieces)

    def _put_back(self, begin: int, pieces: list[bytes]) -> None:
        """A read that took several steps has failed: it has read nothing."""
        self._position = begin
        if self._has_offsets or not pieces:
            return
        # It cannot be read again.
        self._memory = bytearray(b"".join([*pieces, self._view[: self._ahead]]))
        self._view = memoryview(self._memory)
        self._ahead, self._ahead_at = len(self._memory), begin

    async def _read_directly(self, size: int) -> bytes:
        if size > MOST_AHEAD and self._has_offsets:  # no memory for what the file has not
            size = min(size, max(self._file.size() - self._position, MOST_AHEAD))
        buffer = bytearray(size)
        count: int = await self._carry_out(Read(self._key, buffer, self._position))
        self._position += count
        return bytes(buffer) if count == size else bytes(memoryview(buffer)[:count])

    async def _read1(self, size: int) -> bytes:
        await self._write_pending()
        if size < 0:
            size = self._ahead_most
        if size == 0 or self._available():
            await checkpoint()
            return self._take(size) if size else b""
        if not self._buffered or size >= self._ahead_most:
            return await self._read_directly(size)
        return self._take(size) if await self._fill() else b""

    async def _read_all(self) -> bytes:
        await self._write_pending()
        begin = self._position
        pieces = [self._take(available)] if (available := self._available()) else []
        try:
            while True:
                left = self._file.size() - self._position if self._has_offsets else 0
                piece = await self._read_directly(max(left + 1, LEAST_AHEAD))
                if not piece:
                    return b"".join(pieces)
                pieces.append(piece)
                if self._has_offsets and 0 < left == len(piece):
                    return b"".join(pieces)
        except BaseException:
            self._put_back(begin, pieces)
            raise

    async def _read_line(self, size: int) -> bytes:
        await self._write_pending()
        begin = self._position
        pieces: list[bytes] = []
        most = size if size >= 0 else 1 << 62
        if most == 0:
            await checkpoint()
            return b""
        waited = False
        try:
            while most > 0:
                available = self._available()
                if not available:
                    waited = True
                    if not await self._fill():
                        break
                    available = self._ahead
                at = self._position - self._ahead_at
                end = self._memory.find(b"\n", at, min(self._ahead, at + most))
                piece = self._take(end + 1 - at if end >= 0 else most)
                pieces.append(piece)
                most -= len(piece)
                if end >= 0:
                    break
            if not waited:
                await checkpoint()
        except BaseException:
            self._put_back(begin, pieces)
            raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _write(self, data: Buffer) -> int:
        with memoryview(data) as view:
            size = view.nbytes
        if not self._buffered:
            await self._write_directly(data)
            return size
        if self._position != self._pending_at + len(self._pending) and not self._appends:
            await self._write_pending()
        if len(self._pending) + size > self._pending_most:
            await self._write_pending()
        if size >= self._pending_most:
            await self._write_directly(data)
            return size
        await checkpoint()
        if not self._pending:
            self._pending_at = self._position
        self._ahead = 0
        self._pending += data
        self._position += size
        return size

    async def _write_directly(self, data: Buffer) -> None:
        self._check_open()
        self._ahead = 0
        self._to_the_end()

        def move(done: Completion[int]) -> None:
            self._position += done.nbytes

        done = await self._port.complete(Write(self._key, data, self._position), move)
        move(done)
        self._result(done)

    async def _write_pending(self) -> bool:
        """Hands pending writes to the system; whether there were any."""
        self._check_open()
        if not self._pending:
            return False
        pending = self._pending
        if self._appends:
            self._position -= len(pending)
            self._to_the_end()
            self._pending_at = self._position
            self._position += len(pending)

        def forget(done: Completion[int]) -> None:
            del pending[: done.nbytes]
            self._pending_at += done.nbytes

        done = await self._port.complete(Write(self._key, pending, self._pending_at), forget)
        forget(done)
        self._result(done)
        return True

    def _to_the_end(self) -> None:
        """A file that appends is always written at its end, wherever the position is."""
        if self._appends and self._has_offsets:
            self._position = self._file.size()

    async def _seek(self, target: int, whence: int) -> int:
        if whence != os.SEEK_SET or self._appends:
            await self._write_pending()
        if whence == os.SEEK_SET:
            position = target
        elif whence == os.SEEK_CUR:
            position = self._position + target
        elif whence == os.SEEK_END:
            position = self._file.size() + target
        else:  # holes
            position = os.lseek(self._file.fileno(), target, whence)
        if position < 0:
            raise OSError(errno.EINVAL, f"negative seek position {position}")
        self._position = position
        return position


async def lines_of(file: Any, hint: int | None) -> AsyncIterator[Any]:
    """Lines, until their length is more than `hint`."""
    size = 0
    async for line in file:
        yield line
        size += len(line)
        if hint is not None and 0 < hint < size:
            return
