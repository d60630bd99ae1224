"""Operations on files and pipes.

A file is read and written at an offset that the operation names; a pipe (or a
terminal) has none, and the offset is ignored.  Buffers are the caller's until
submission and the operation's until completion; see portio/buffers.py for what
is accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from portio.accelerator import ReadFields, WriteFields
from portio.operations import numbers
from portio.operations.base import (
    LARGEST,
    Operation,
    Prepared,
    Transfer,
    check_offset,
    no_result,
    unusable_key,
)

if TYPE_CHECKING:
    from portio.buffers import Buffers
    from portio.keys import CompletionKey
    from portio.operations.base import Entry
    from portio.unqueued import UnqueuedOperations

__all__ = ["Read", "Sync", "Write"]


class Read(ReadFields, Transfer[int]):
    """Reads from a file at `offset`, or what there is in a pipe.

    The result is how many bytes.  From a file it is less than asked for only at
    the file's end, and 0 at or behind it.  From a pipe it is at least one, and 0
    when all writers have closed it.

    Raises at submission: BufferError for a read-only buffer, ValueError for a
    negative offset.
    """

    __slots__ = ()

    key: CompletionKey
    label = "portio.Read"

    #: Where to put it: a writable buffer, or a sequence of them.
    buffer: Buffers
    #: Where in the file, in bytes.
    offset: int

    def __init__(self, key: CompletionKey, buffer: Buffers, offset: int = 0) -> None:
        self.key = key
        self.buffer = buffer
        self.offset = offset
        self._entry = None

    def _prepare(self, port: UnqueuedOperations, token: int, mode: int) -> Prepared:
        key = self.key
        if (
            key._port is not port
            or not key._fits & numbers.FILES_AND_PIPES
            or key._number() != key._descriptor
        ):
            raise unusable_key(self, port, "a file or a pipe")
        offset = self.offset
        if type(offset) is not int or not 0 <= offset <= LARGEST:
            offset = check_offset(offset)
        from_buffer = port._from_buffer
        try:
            pin = from_buffer(port._chars, self.buffer, True)
        except TypeError as refused:
            form, buffer, length, pin, settle = self._pin_sequence(
                port, self.buffer, writable=True, refused=refused
            )
            entry = self, key, settle, pin, token, port, mode
            request = (
                port._native,
                numbers.READ,
                form | mode,
                key._id,
                token,
                buffer,
                length,
                offset,
            )
            return entry, request
        entry = self, key, None, pin, token, port, mode
        request = port._native, numbers.READ, mode, key._id, token, pin, len(pin), offset
        return entry, request


class Write(WriteFields, Transfer[int]):
    """Writes every byte, to a file at `offset`, or into a pipe; the result is how many.

    It completes when all are written, or with an error whose completion says how
    many were.

    Raises at submission: ValueError for a negative offset.
    """

    __slots__ = ()

    key: CompletionKey
    label = "portio.Write"

    #: What to write: a buffer, or a sequence of them.
    buffer: Buffers
    #: Where in the file, in bytes.
    offset: int

    def __init__(self, key: CompletionKey, buffer: Buffers, offset: int = 0) -> None:
        self.key = key
        self.buffer = buffer
        self.offset = offset
        self._entry = None

    def _prepare(self, port: UnqueuedOperations, token: int, mode: int) -> Prepared:
        key = self.key
        if (
            key._port is not port
            or not key._fits & numbers.FILES_AND_PIPES
            or key._number() != key._descriptor
        ):
            raise unusable_key(self, port, "a file or a pipe")
        offset = self.offset
        if type(offset) is not int or not 0 <= offset <= LARGEST:
            offset = check_offset(offset)
        buffer = self.buffer
        if type(buffer) is bytes:
            entry: Entry = self, key, None, buffer, token, port, mode
            request = port._native, numbers.WRITE, mode, key._id, token, buffer, len(buffer), offset
            return entry, request
        from_buffer = port._from_buffer
        try:
            pin = from_buffer(port._chars, buffer)
        except TypeError as refused:
            form, data, length, pin, settle = self._pin_sequence(
                port, buffer, writable=False, refused=refused
            )
            entry = self, key, settle, pin, token, port, mode
            request = port._native, numbers.WRITE, form | mode, key._id, token, data, length, offset
            return entry, request
        entry = self, key, None, pin, token, port, mode
        request = port._native, numbers.WRITE, mode, key._id, token, pin, len(pin), offset
        return entry, request


class Sync(Operation[None]):
    """Makes what was written to a file durable, as fsync does.

    It covers the writes that have completed before it was submitted.  `data_only`
    leaves out metadata that reading the data does not need (fdatasync).
    """

    __slots__ = ("data_only",)

    key: CompletionKey
    label = "portio.Sync"

    #: Leave out metadata.
    data_only: bool

    def __init__(
        self,
        key: CompletionKey,
        data_only: bool = False,  # noqa: FBT001, FBT002 (a field, as the others)
    ) -> None:
        self.key = key
        self.data_only = data_only
        self._entry = None

    def _prepare(self, port: UnqueuedOperations, token: int, mode: int) -> Prepared:
        key = self.key
        if (
            key._port is not port
            or not key._fits & numbers.FILE
            or key._number() != key._descriptor
        ):
            raise unusable_key(self, port, "a file")
        flags = numbers.DATA_ONLY if self.data_only else 0
        entry = self, key, no_result, None, token, port, mode
        request = port._native, numbers.SYNC, flags | mode, key._id, token, port._null, 0, 0
        return entry, request
