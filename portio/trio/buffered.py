"""The steps of a binary file: its position, its buffers, and what reads and writes.

A file is read and written at offsets; what the classic interface has on top of that, a
position and a buffer, is kept here.  At any time there is at most one of

- *read-ahead*: bytes of the file from `_ahead_at` on, `_ahead` of them in `_memory`;
- *pending writes*: `_pending`, which belong at `_pending_at`, not in the file yet.

The position is a number of ours, `_position`; the system's is not used, except that a
pipe or a terminal has no other.  Reads in sequence are ever larger, up to 128 KiB; a
read elsewhere begins with 8 KiB again.

A descriptor that was *given* may be shared: with `print`, with a child, with whoever
goes on with it when we are done.  Its offset in the system is therefore looked at when a
turn begins, and set when it ends: at the position, or where pending writes will go.

Who owns what.  All of the state belongs to the task that has the turn, with three
exceptions: `write_at` drops the read-ahead at any time, so a step looks again after each
wait (`_available`); it marks what a turn under way is reading as `_stale`; and closing a
file without offsets does not wait for a reader, see `BinaryFile.aclose`.

Every step here is called by a public method that is protected from KeyboardInterrupt:
between the end of an operation and the note that is taken of it nothing may be raised.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import ParkingLot, checkpoint

from portio.completion import Completion
from portio.errors import OperationCancelledError, PortClosedError
from portio.operations import Read, Write, numbers
from portio.trio.turns import Turns

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from portio.files import File
    from portio.operations import Sync
    from portio.trio.ports import TrioPort

__all__ = ["BufferedSteps"]

LEAST_AHEAD = 8 * 1024
MOST_AHEAD = 128 * 1024
WRITE_BUFFER = 64 * 1024
_WHENCE = {os.SEEK_SET, os.SEEK_CUR, os.SEEK_END}
_WHENCE |= {getattr(os, name) for name in ("SEEK_DATA", "SEEK_HOLE") if hasattr(os, name)}


class BufferedSteps:
    """What `BinaryFile` consists of, below its public methods."""

    def __init__(
        self, port: TrioPort, file: File, *, mode: str, buffering: int, owns: bool, given: bool
    ) -> None:
        self._port = port
        self._file = file
        self._mode = mode
        self._owns = owns  # the descriptor is ours to close
        self._readable = "r" in mode or "+" in mode
        self._writable = "r" not in mode or "+" in mode
        self._appends = "a" in mode or (given and _appends(file.fileno()))
        self._buffered = buffering != 0
        self._ahead_most = buffering if buffering > 1 else MOST_AHEAD
        self._ahead_least = min(self._ahead_most, LEAST_AHEAD)
        self._pending_most = buffering if buffering > 1 else WRITE_BUFFER
        self._position = 0
        self._memory = bytearray()
        self._view = memoryview(self._memory)
        self._ahead_size = 0  # what was asked for the last time
        self._ahead = 0
        self._ahead_at = 0
        self._stale = False  # what this turn reads ahead is not to be kept
        self._pending = bytearray()
        self._pending_at = 0
        self._accepted = 0  # bytes that were taken for writing, ever
        self._reading = False  # from what may never have anything
        self._closing = False  # no turn begins any more
        self._closed = False
        self._turns = Turns(self._begin, self._end)
        self._scopes: set[trio.CancelScope] = set()  # of operations on what is not ours
        self._idle = ParkingLot()  # until there are none
        self._key = port.associate(file)
        self._has_offsets = bool(self._key._fits & numbers.FILE)
        self._shares = given and self._has_offsets
        self._left_at = 0  # the system's offset, when we have last set it
        if self._has_offsets:
            try:
                self._position = self._left_at = _first_position(file, mode)
            except BaseException:
                if given:
                    port.port.disassociate(self._key)
                raise

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

    # ---- turns ----

    def _begin(self) -> None:
        if self._closing:  # while we waited
            raise ValueError("I/O operation on closed file")
        if self._shares:
            self._take_over()

    def _end(self) -> None:
        if self._stale or not self._buffered:
            self._stale = False
            self._drop_ahead()
        if self._shares and not self._closed:
            self._hand_over()

    def _take_over(self) -> None:
        """If somebody else has moved the system's offset, we go on there."""
        now = os.lseek(self._file.fileno(), 0, os.SEEK_CUR)
        if now == self._left_at:
            return
        self._left_at = self._pending_at = now
        self._position = now + len(self._pending)
        self._drop_ahead()

    def _hand_over(self) -> None:
        """Sets the system's offset to where we would go on."""
        at = self._pending_at if self._pending else self._position
        if at != self._left_at:
            self._left_at = os.lseek(self._file.fileno(), at, os.SEEK_SET)

    # ---- operations ----

    async def _carry_out(self, operation: Read | Write | Sync) -> Any:
        self._check_open()  # it may have been closed while we waited for our turn
        return self._result(await self._complete(operation))

    async def _complete(
        self,
        operation: Read | Write | Sync,
        moved: Callable[[Completion[int]], object] | None = None,
    ) -> Completion[Any]:
        if self._owns:
            return await self._port.complete(operation, moved)
        # Closing the key would close the descriptor, so who closes cancels these.
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                return await self._port.complete(operation, moved)
            finally:
                self._scopes.discard(scope)
                if not self._scopes:
                    self._idle.unpark_all()
        raise ValueError("the file was closed by another task")

    def _result(self, done: Completion[Any]) -> Any:
        if isinstance(done.error, OperationCancelledError):
            raise ValueError("the file was closed by another task")  # noqa: TRY004
        return done.result()

    async def _close(self) -> None:
        """In a turn, or while a reader waits that may wait for ever."""
        if self._closed:
            return
        try:
            await self._write_pending()
            if self._shares:
                self._hand_over()
        finally:
            self._closed = True
            self._pending = bytearray()
            if self._owns:
                self._port.close_key(self._key)
            else:
                await self._give_back()

    async def _give_back(self) -> None:
        """The end of a file whose descriptor is not ours to close."""
        try:
            for scope in self._scopes:
                scope.cancel()
            while self._scopes:
                await self._idle.park()
        finally:
            try:
                if not self._port.closed:
                    self._port.port.disassociate(self._key)
            except PortClosedError:  # by another thread, and then it has let go of it
                pass
            finally:
                self._file.surrender()

    # ---- reading, in turn ----

    def _available(self) -> int:
        """Bytes of the read-ahead from the position on."""
        at = self._position - self._ahead_at
        return self._ahead - at if 0 <= at < self._ahead else 0

    def _take(self, size: int) -> bytes:
        """Bytes of the read-ahead, as many as there are."""
        if not self._available():
            return b""
        at = self._position - self._ahead_at
        end = min(at + size, self._ahead)
        self._position += end - at
        return bytes(self._view[at:end])

    def _drop_ahead(self) -> None:
        """What was read ahead may be old, and can be read again."""
        if self._has_offsets:
            self._ahead = 0

    async def _read_into(self, buffer: Buffer) -> int:
        if self._has_offsets:
            count: int = await self._carry_out(Read(self._key, buffer, self._position))
            return count
        if self._closing:
            raise ValueError("I/O operation on closed file")
        self._reading = True
        try:
            count = await self._carry_out(Read(self._key, buffer, self._position))
        finally:
            self._reading = False
        return count

    async def _fill(self) -> int:
        """Reads ahead from the position on, where nothing is read ahead yet."""
        in_sequence = self._ahead and self._position == self._ahead_at + self._ahead
        size = min(2 * self._ahead_size, self._ahead_most) if in_sequence else self._ahead_least
        self._ahead = 0
        self._ahead_size = size
        if size > len(self._memory):
            self._memory = bytearray(size)
            self._view = memoryview(self._memory)
        count = await self._read_into(self._view[:size])
        self._ahead_at = self._position
        self._ahead = count
        return count

    async def _read(self, size: int) -> bytes:
        await self._write_pending()
        if size == 0:
            await checkpoint()
            return b""
        if self._available() >= size:
            await checkpoint()
            if self._available() >= size:  # still
                return self._take(size)
        if not self._buffered:
            return self._take(size) or await self._read_directly(size)
        return await self._gather(size)

    async def _gather(self, size: int) -> bytes:
        """Reads until there are `size` bytes, or the end."""
        begin = self._position
        pieces = []
        left = size
        try:
            while left > 0:
                piece = self._take(left)
                if not piece and left >= self._ahead_most:
                    piece = await self._read_directly(left)
                elif not piece:
                    if not await self._fill():
                        break
                    continue
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
        if not self._has_offsets and pieces:  # they cannot be read again
            at = self._position - self._ahead_at
            rest = self._view[at : self._ahead] if self._available() else b""
            self._memory = bytearray(b"".join([*pieces, rest]))
            self._view = memoryview(self._memory)
            self._ahead, self._ahead_at = len(self._memory), begin
        self._position = begin

    async def _read_directly(self, size: int) -> bytes:
        if size > MOST_AHEAD and self._has_offsets:  # no memory for what the file has not
            size = min(size, max(self._file.size() - self._position, MOST_AHEAD))
        buffer = bytearray(size)
        count = await self._read_into(buffer)
        self._position += count
        return bytes(buffer) if count == size else bytes(memoryview(buffer)[:count])

    async def _read1(self, size: int) -> bytes:
        await self._write_pending()
        if size < 0:
            size = self._ahead_most
        if size == 0 or self._available():
            await checkpoint()
            if size == 0 or self._available():
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

    async def _read_lines(self, hint: int) -> list[bytes]:
        begin = self._position
        lines: list[bytes] = []
        size = 0
        try:
            while line := await self._read_line(-1):
                lines.append(line)
                size += len(line)
                if 0 < hint < size:
                    break
        except BaseException:
            self._put_back(begin, lines)
            raise
        return lines

    # ---- writing, in turn ----

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
        self._drop_ahead()
        before = len(self._pending)
        self._pending += data
        size = len(self._pending) - before  # somebody may have made it longer meanwhile
        self._position += size
        self._accepted += size
        return size

    async def _write_directly(self, data: Buffer) -> None:
        self._check_open()
        self._drop_ahead()
        self._to_the_end()

        def move(done: Completion[int]) -> None:
            self._position += done.nbytes
            self._accepted += done.nbytes

        done = await self._complete(Write(self._key, data, self._position), move)
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

        done = await self._complete(Write(self._key, pending, self._pending_at), forget)
        forget(done)
        self._result(done)
        return True

    def _to_the_end(self) -> None:
        """A file that appends is always written at its end, wherever the position is."""
        if self._appends and self._has_offsets:
            self._position = self._file.size()

    # ---- the position, in turn ----

    async def _seek(self, target: int, whence: int) -> int:
        if whence not in _WHENCE:
            raise ValueError(f"invalid whence ({whence})")
        if whence != os.SEEK_SET or self._appends or self._shares:
            await self._write_pending()
        if whence == os.SEEK_SET:
            position = target
        elif whence == os.SEEK_CUR:
            position = self._position + target
        elif whence == os.SEEK_END:
            position = self._file.size() + target
        else:  # holes
            position = os.lseek(self._file.fileno(), target, whence)
            self._left_at = position
        if position < 0:
            raise OSError(errno.EINVAL, f"negative seek position {position}")
        if position > sys.maxsize:
            kind = ValueError if self._buffered else OverflowError  # as Python's
            raise kind(f"seek position {position} is too large")
        self._position = position
        return position


def _first_position(file: File, mode: str) -> int:
    """Where it begins: at the end to append, else where the descriptor is."""
    if sys.platform != "win32":
        whence = os.SEEK_END if "a" in mode else os.SEEK_CUR
        return os.lseek(file.fileno(), 0, whence)
    # A handle for overlapped I/O has no offset of its own.
    return file.size() if "a" in mode else 0


def _appends(descriptor: int) -> bool:
    """Whether the system itself writes at the end, whatever the offset."""
    if sys.platform != "win32":
        return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)
    return False
