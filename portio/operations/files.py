"""Operations on files and pipes.

A file is read and written at an offset that the operation names; a pipe (or a
terminal) has none, and the offset is ignored.  Buffers are the caller's until
submission and the operation's until completion; see portio/buffers.py for what
is accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from portio.operations import numbers
from portio.operations.base import (
    LARGEST,
    Operation,
    Request,
    Transfer,
    check_offset,
    no_result,
    unusable_key,
)

if TYPE_CHECKING:
    from portio.buffers import Buffers
    from portio.engine import Engine
    from portio.keys import CompletionKey

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

    #: Where to put it: a writable buffer, or a sequence of them.
    buffer: Buffers
    #: Where in the file, in bytes.
    offset: int

    def __init__(self, key: CompletionKey, buffer: Buffers, offset: int = 0) -> None:
        self.key = key
        self.buffer = buffer
        self.offset = offset
        self._entry = None

    def _prepare(self, port: Engine) -> Request:
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
            return numbers.READ, key._id, form, buffer, length, offset, key, pin, settle
        return numbers.READ, key._id, 0, pin, len(pin), offset, key, pin, None


class Write(Transfer[int]):
    """Writes every byte, to a file at `offset`, or into a pipe; the result is how many.

    It completes when all are written, or with an error whose completion says how
    many were.

    Raises at submission: ValueError for a negative offset.
    """

    __slots__ = ("buffer", "offset")

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

    def _prepare(self, port: Engine) -> Request:
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
            return numbers.WRITE, key._id, 0, buffer, len(buffer), offset, key, buffer, None
        from_buffer = port._from_buffer
        try:
            pin = from_buffer(port._chars, buffer)
        except TypeError as refused:
            form, data, length, pin, settle = self._pin_sequence(
                port, buffer, writable=False, refused=refused
            )
            return numbers.WRITE, key._id, form, data, length, offset, key, pin, settle
        return numbers.WRITE, key._id, 0, pin, len(pin), offset, key, pin, None


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

    def _prepare(self, port: Engine) -> Request:
        key = self.key
        if (
            key._port is not port
            or not key._fits & numbers.FILE
            or key._number() != key._descriptor
        ):
            raise unusable_key(self, port, "a file")
        flags = numbers.DATA_ONLY if self.data_only else 0
        return numbers.SYNC, key._id, flags, port._null, 0, 0, key, None, no_result
