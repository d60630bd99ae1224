"""Operations that are multishot by their nature (contract O16, O17, O20)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from portio.accelerator import RecvLentFields, RecvMultishotFields
from portio.operations import numbers
from portio.operations.base import QUEUED, Operation, Prepared, unusable_key
from portio.pools import BufferPool

if TYPE_CHECKING:
    from portio.keys import CompletionKey
    from portio.operations.base import Entry
    from portio.unqueued import UnqueuedOperations

__all__ = ["RecvLent", "RecvMultishot"]

T = TypeVar("T")


class PooledReceive(Operation[T]):
    """What the receives with a pool have in common."""

    __slots__ = ()

    key: CompletionKey
    multishot: ClassVar[bool] = True
    #: Where its buffers come from.
    pool: BufferPool

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
        lends = isinstance(self, RecvLentFields)
        settle = pool.lend if lends else pool.settle
        flags = numbers.MULTISHOT | (numbers.LEND if lends else 0)
        entry = self, key, settle, pool, token, port, mode
        request = port._native, numbers.RECV, flags, key._id, token, pool._native, 0, 0
        return entry, request

    def _next_turn(self, entry: Entry, token: int) -> Entry:
        _, key, settle, pool, _, port, mode = entry
        return self, key, settle, pool, token, port, mode


class RecvMultishot(RecvMultishotFields, PooledReceive[bytes]):
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

    label = "portio.RecvMultishot"

    def __init__(self, key: CompletionKey, pool: BufferPool) -> None:
        self.key = key
        self.pool = pool
        self._entry = None


class RecvLent(RecvLentFields, PooledReceive[memoryview]):
    """Receives like `RecvMultishot`, but gives the buffers themselves: nothing is copied.

    The result of a piece is a writable `memoryview` of its bytes in the pool (contract O20).
    It is the program's, and so is the whole buffer, until the memoryview and everything
    that shares it is released or dropped: slices, other memoryviews, and operations that
    are pending with it.  Then the buffer goes back, whichever thread that was in.  A
    completion shares its result, too; ``completion.result().release()`` is the way to
    be done with it at once.

    What the program holds on to is missing in the pool, and receives that need a buffer
    wait for one: who keeps pieces for long copies them (`bytes`).  The result of the last
    completion is an empty memoryview.

    Raises at submission what `RecvMultishot` raises.
    """

    __slots__ = ()

    label = "portio.RecvLent"

    def __init__(self, key: CompletionKey, pool: BufferPool) -> None:
        self.key = key
        self.pool = pool
        self._entry = None
