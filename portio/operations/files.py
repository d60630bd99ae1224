"""Operations on files and pipes.

A file is read and written at an offset that the operation names; a pipe (or a
terminal) has none, and the offset is ignored.  Buffers are the caller's until
submission and the operation's until completion; see portio/buffers.py for what
is accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from portio.operations.base import (
    FILES,
    LARGEST,
    STREAMS_AND_FILES,
    Operation,
    Request,
    Transfer,
    check_offset,
    unusable_key,
)

if TYPE_CHECKING:
    from portio.buffers import Buffers
    from portio.keys import CompletionKey
    from portio.port import Port

__all__ = ["Read", "Sync", "Write"]


class Read(Transfer[int]):
    """Reads from a file at `offset`, or what there is in a pipe.

    The result is how many bytes.  From a file it is less than asked for only at
    the file's end, and 0 at or behind it.  From a pipe it is at least one, and 0
    when all writers have closed it.

    Raises at submission: BufferError for a read-only buffer, ValueError for a
    negative offset.
    """

    __slots__ = ("buffer", "offset")

    key: CompletionKey
    label = "portio.Read"
    _handles = STREAMS_AND_FILES

    #: Where to put it: a writable buffer, or a sequence of them.
    buffer: Buffers
    #: Where in the file, in bytes.
    offset: int

    def __init__(self, key: CompletionKey, buffer: Buffers, offset: int = 0) -> None:
        self.key = key
        self.buffer = buffer
        self.offset = offset
        self._token = 0

    def _prepare(self, port: Port) -> Request:
        key = self.key
        if key._port is not port or not key._fits & self._fits:
            raise unusable_key(self, port)
        offset = self.offset
        if offset.__class__ is not int or not 0 <= offset <= LARGEST:
            offset = check_offset(offset)
        try:
            pin = self._pin = port._from_buffer(port._chars, self.buffer, True)
        except TypeError as refused:
            form, pin, length = self._pin_sequence(port, self.buffer, True, refused)
            return key._id, form, pin, length, offset
        return key._id, 0, pin, len(pin), offset


class Write(Transfer[int]):
    """Writes every byte, to a file at `offset`, or into a pipe; the result is how many.

    It completes when all are written, or with an error whose completion says how
    many were.

    Raises at submission: ValueError for a negative offset.
    """

    __slots__ = ("buffer", "offset")

    key: CompletionKey
    label = "portio.Write"
    _handles = STREAMS_AND_FILES

    #: What to write: a buffer, or a sequence of them.
    buffer: Buffers
    #: Where in the file, in bytes.
    offset: int

    def __init__(self, key: CompletionKey, buffer: Buffers, offset: int = 0) -> None:
        self.key = key
        self.buffer = buffer
        self.offset = offset
        self._token = 0

    def _prepare(self, port: Port) -> Request:
        key = self.key
        if key._port is not port or not key._fits & self._fits:
            raise unusable_key(self, port)
        offset = self.offset
        if offset.__class__ is not int or not 0 <= offset <= LARGEST:
            offset = check_offset(offset)
        buffer = self.buffer
        if buffer.__class__ is bytes:
            self._pin = buffer
            return key._id, 0, buffer, len(buffer), offset
        try:
            pin = self._pin = port._from_buffer(port._chars, buffer)
        except TypeError as refused:
            form, pin, length = self._pin_sequence(port, buffer, False, refused)
            return key._id, form, pin, length, offset
        return key._id, 0, pin, len(pin), offset


class Sync(Operation[None]):
    """Makes what was written to a file durable, as fsync does.

    It covers the writes that have completed before it was submitted.  `data_only`
    leaves out metadata that reading the data does not need (fdatasync).
    """

    __slots__ = ("data_only",)

    key: CompletionKey
    label = "portio.Sync"
    _handles = FILES
    _settles = True

    #: Leave out metadata.
    data_only: bool

    def __init__(self, key: CompletionKey, data_only: bool = False) -> None:
        self.key = key
        self.data_only = data_only
        self._token = 0

    def _prepare(self, port: Port) -> Request:
        key = self.key
        if key._port is not port or not key._fits & self._fits:
            raise unusable_key(self, port)
        flags = port._lib.PORTIO_DATA_ONLY if self.data_only else 0
        self._pin = None
        return key._id, flags, port._null, 0, 0

    def _settle(self, nbytes: int, status: int) -> None:
        return None
