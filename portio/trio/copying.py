"""Whole files: from file to file, and from a file into a stream."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from portio import files
from portio.operations import Read, SendFile, Write
from portio.trio.binary import BinaryFile
from portio.trio.ports import TrioPort, current_port
from portio.trio.sockets import SocketStream

if TYPE_CHECKING:
    from portio.keys import CompletionKey, HasFileno
    from portio.trio.files import Path

__all__ = ["copy_file", "send_file"]

BLOCK = 256 * 1024


@enable_ki_protection
async def copy_file(
    source: Path,
    target: Path,
    *,
    block_size: int = BLOCK,
    in_flight: int = 8,
    on: TrioPort | None = None,
) -> int:
    """Copies the bytes of a file, with `in_flight` blocks on their way; gives their number.

    `target` is made, or overwritten, as `shutil.copyfile` does it; what it has when this
    is cancelled or fails is not defined.  `on` is the port to use; None: that of the run.

    Raises `shutil.SameFileError`, ValueError, and the OSErrors that the system gives.
    """
    if block_size < 1 or in_flight < 1:
        raise ValueError("block_size and in_flight must be at least 1")
    port = current_port() if on is None else on
    reader, writer = await trio.to_thread.run_sync(_open_both, source, target)
    failure: BaseException | None = None
    with reader, writer:
        copy = _Copy(port, port.associate(reader), port.associate(writer), block_size)
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(min(in_flight, reader.size() // block_size + 1)):
                    nursery.start_soon(copy.work)
        except BaseExceptionGroup as group:
            failure = _most_telling(group)
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # which refers to this frame
    await checkpoint_if_cancelled()
    return copy.copied


def _open_both(source: Path, target: Path) -> tuple[files.File, files.File]:
    reader = files.open(source)
    try:
        try:
            same = os.path.samefile(source, target)
        except OSError:
            same = False  # there is no target yet
        if same:
            raise shutil.SameFileError(f"{source!r} and {target!r} are the same file")
        return reader, files.open(target, "w")
    except BaseException:
        reader.close()
        raise


def _most_telling(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception that a copy without a nursery would have raised.

    What ends the program first, then what went wrong; to be cancelled comes last, because
    a scope that is cancelled has it raised again at the next checkpoint.
    """
    leaves: list[BaseException] = []
    groups: list[BaseExceptionGroup[BaseException]] = [group]
    while groups:
        for error in groups.pop().exceptions:
            if isinstance(error, BaseExceptionGroup):
                groups.append(error)
            else:
                leaves.append(error)

    def rank(error: BaseException) -> int:
        if isinstance(error, trio.Cancelled):
            return 2
        return int(isinstance(error, Exception))

    return min(leaves, key=rank)


class _Copy:
    """Tasks take the next block each, until one has seen the end."""

    def __init__(
        self, port: TrioPort, reader: CompletionKey, writer: CompletionKey, block_size: int
    ) -> None:
        self._port = port
        self._reader = reader
        self._writer = writer
        self._block_size = block_size
        self._next = 0
        self._ended = False
        self.copied = 0

    async def work(self) -> None:
        memory = memoryview(bytearray(self._block_size))
        read = Read(self._reader, memory)
        write = Write(self._writer, memory)
        while not self._ended:
            read.offset = write.offset = self._next
            self._next += self._block_size
            count = await self._port.run(read)
            if count < self._block_size:
                self._ended = True
            if count:
                write.buffer = memory[:count]
                written = await self._port.run(write)
                self.copied += written  # in a step of its own, without a wait in it


@enable_ki_protection
async def send_file(
    stream: trio.abc.SendStream,
    file: BinaryFile | files.File | int | HasFileno,
    offset: int = 0,
    count: int | None = None,
) -> int:
    """Sends a part of a file into a stream; gives the number of bytes.

    `count` None sends up to the end of the file; it also ends there when `count` is
    larger.  On a `SocketStream` the bytes do not pass through Python.  Other streams,
    TLS for one, get them block by block, and then the file must be a `BinaryFile`.  The
    file's position is neither used nor changed; it must not be closed meanwhile.

    If it is cancelled, nobody knows how much was sent.

    Raises what `send_all` raises; OSError when the file cannot be read; ValueError for a
    negative number; TypeError for another stream and a file that is none of ours.
    """
    if offset < 0 or (count is not None and count < 0):
        raise ValueError("offset and count must not be negative")
    if isinstance(file, BinaryFile) and file._pending:
        await file.flush()
    if isinstance(stream, SocketStream):
        return await _send_by_system(stream, file, offset, count)
    if not isinstance(file, BinaryFile):
        kind = type(stream).__name__
        raise TypeError(f"to be sent into a {kind} the file must be one that open_file has opened")
    return await _send_blocks(stream, file, offset, count)


async def _send_by_system(
    stream: SocketStream,
    file: BinaryFile | files.File | int | HasFileno,
    offset: int,
    count: int | None,
) -> int:
    done = await stream._send_one(SendFile(stream._key, file, offset, count))
    if done.error is None:
        return done.nbytes
    if done.error.errno in _OF_FILES:
        raise done.error
    raise stream._failure(done)


#: What reading the file may have met, and sending cannot.
_OF_FILES = {errno.EIO, errno.EISDIR, errno.ESPIPE, errno.EINVAL, errno.EOVERFLOW}


async def _send_blocks(
    stream: trio.abc.SendStream, file: BinaryFile, offset: int, count: int | None
) -> int:
    memory = memoryview(bytearray(BLOCK))
    sent = 0
    while count is None or sent < count:
        block = memory if count is None else memory[: count - sent]
        size = await file.readinto_at(offset + sent, block)
        if not size:
            break
        await stream.send_all(block[:size])
        sent += size
    if sent:
        await checkpoint_if_cancelled()
    else:
        await checkpoint()
    return sent
