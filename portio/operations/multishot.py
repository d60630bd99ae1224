"""Operations that are multishot by their nature (contract O16, O17)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from portio.accelerator import RecvMultishotFields
from portio.operations import numbers
from portio.operations.base import QUEUED, Operation, Prepared, unusable_key
from portio.pools import BufferPool

if TYPE_CHECKING:
    from portio.keys import CompletionKey
    from portio.operations.base import Entry
    from portio.unqueued import UnqueuedOperations

__all__ = ["RecvMultishot"]


class RecvMultishot(RecvMultishotFields, Operation[bytes]):
    """Receives from a stream again and again, into buffers of a pool.

    One submission gives a completion for each piece that arrives, of 1 to ``pool.size``
    bytes; the result is the bytes.  The end of the stream is its last completion, with
    ``b""``; so is an error, and the end by `cancel` (`Completion.last`).  The
    completion of a piece gives its buffer back when it leaves the port, and not before that
    comes the next.  Until the end, no other receive on the stream gets anything.

    Several threads that take completions may have consecutive pieces in hand at the same
    time; where the order matters to them, `Recv` is the simpler choice.

    Raises at submission: TypeError when the key's handle is no stream socket, or `pool` no
    `BufferPool`; ValueError when it is a pool of another port, and for an operation that
    is quiet or submitted with ``queued=False``.
    """

    __slots__ = ()

    key: CompletionKey
    label = "portio.RecvMultishot"
    multishot: ClassVar[bool] = True

    #: Where its buffers come from.
    pool: BufferPool

    def __init__(self, key: CompletionKey, pool: BufferPool) -> None:
        self.key = key
        self.pool = pool
        self._entry = None

    def _prepare(self, port: UnqueuedOperations, token: int, mode: int) -> Prepared:
        key = self.key
        if (
            key._port is not port
            or not key._fits & numbers.STREAM_SOCKET
            or key._number() != key._descriptor
        ):
            raise unusable_key(self, port, "a stream socket")
        pool: object = self.pool
        if not isinstance(pool, BufferPool):
            raise TypeError(f"pool must be a BufferPool, not {type(pool).__name__!r}")
        if pool._port is not port:
            raise ValueError(f"{pool!r} is of another port")
        if mode != QUEUED:
            raise ValueError("a multishot operation is neither quiet nor queued=False")
        entry = self, key, pool.settle, pool, token, port, mode
        flags = numbers.MULTISHOT
        request = port._native, numbers.RECV, flags, key._id, token, pool._native, 0, 0
        return entry, request

    def _next_turn(self, entry: Entry, token: int) -> Entry:
        _, key, settle, pool, _, port, mode = entry
        return self, key, settle, pool, token, port, mode
