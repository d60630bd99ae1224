"""Pools of buffers for receives that go on.

A receive with a buffer of its own holds that buffer as long as it is pending, which for
an idle connection is all the time.  A receive with a pool is lent a buffer when there
is data for it, and has it until the program has the bytes: ten thousand idle connections
need none, and the memory of a pool bounds what waits in the port to be taken.

Ownership.  A buffer is free, or lent to an operation, or to the program.  The bytes of a
`RecvMultishot` are copied when a completion leaves the port, and then the buffer goes back:
nobody else sees it.  That of a `RecvLent` is the program's from the same moment on, which
is the claim of the record, until the last of whoever looks at the memory has let go of it.
Both operations and what was lent hold their pool, and it the memory and the engine's
part of itself.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING

from portio import errors
from portio.accelerator import PoolFields

if TYPE_CHECKING:
    from portio.backends.native import CData
    from portio.port import Port

__all__ = ["BufferPool", "Lent"]

MOST_BYTES = 2**31 - 1  # of one buffer
MOST_BUFFERS = 2**20
LENGTH = 2**32 - 1  # the bits of a record's bytes that are; the number of a buffer is above


class BufferPool(PoolFields):
    """`count` buffers of `size` bytes each, for the receives of `port`.

    A receive has a buffer from the moment that there is data for it until its completion
    leaves the port; of a `RecvLent` the program has it after that.  When all are in use,
    further receives wait, in the order in which they needed one, until one comes back:
    their peers feel it as every receiver that is slow.

    Raises ValueError and TypeError for bad arguments, `PortClosedError`, MemoryError, and
    RuntimeError in a forked child.
    """

    __slots__ = ("_native", "_view", "count")

    #: How many buffers.
    count: int
    #: How many bytes each of them has, which is the most that one completion gives.
    size: int

    def __init__(self, port: Port, count: int, size: int) -> None:
        count, size = index(count), index(size)
        if not 1 <= count <= MOST_BUFFERS:
            raise ValueError(f"count must be from 1 to {MOST_BUFFERS}, not {count}")
        if not 1 <= size <= MOST_BYTES:
            raise ValueError(f"size must be from 1 to 2**31 - 1, not {size}")
        if port.closed:
            raise errors.port_closed()
        self.count = count
        self.size = size
        self._port = port
        self._memory = bytearray(count * size)
        self._view = memoryview(self._memory)
        lib, ffi = port._lib, port._ffi
        memory = ffi.from_buffer(port._chars, self._memory, True)
        native = lib.portio_pool_create(memory, count, size)
        if native == ffi.NULL:
            raise MemoryError("a pool of buffers")
        self._native: CData = ffi.gc(native, lib.portio_pool_free)
        self._address = int(ffi.cast("uintptr_t", native))

    @property
    def port(self) -> Port:
        """The port whose receives it serves."""
        return self._port

    def settle(self, nbytes: int, error: int) -> tuple[int, bytes]:  # noqa: ARG002
        """What a record says has arrived: its length, and a copy of it."""
        length = nbytes & LENGTH
        start = (nbytes >> 32) * self.size
        return length, bytes(self._view[start : start + length])

    def lend(self, nbytes: int, error: int) -> tuple[int, Lent | memoryview]:
        """What a record says has arrived: its length, and the buffer, if it has one."""
        length = nbytes & LENGTH
        if error or not length:
            return length, memoryview(bytearray())  # writable, as all are
        ffi = self._port._ffi
        end = End(self, nbytes >> 32)
        start = ffi.from_buffer(self._port._chars, self._memory, True) + end.number * self.size
        return length, Lent(memoryview(ffi.buffer(ffi.gc(start, end), length)), end)

    def _take_back(self, number: int) -> None:
        """A buffer is the program's no more."""
        port = self._port
        if not port._forked:
            # Refused only where nothing is left to give back to: the port is closed.
            port._lib.portio_pool_return(port._native, self._native, number)

    def __repr__(self) -> str:
        return f"<portio.BufferPool {self.count} x {self.size} bytes>"


class End:
    """What is called when nobody has the memory of a loan any more."""

    __slots__ = ("begun", "number", "pool")

    def __init__(self, pool: BufferPool, number: int) -> None:
        self.pool = pool
        self.number = number
        #: Whether the record was claimed: else the buffer was another's, and still is.
        self.begun = False

    def __call__(self, _: CData) -> None:
        if self.begun:
            self.pool._take_back(self.number)


class Lent:
    """A piece whose record was not claimed yet."""

    __slots__ = ("end", "view")

    def __init__(self, view: memoryview, end: End) -> None:
        self.view = view
        self.end = end
