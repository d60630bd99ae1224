"""Pools of buffers for receives that go on.

A receive with a buffer of its own holds that buffer as long as it is pending, which for
an idle connection is all the time.  A receive with a pool is lent a buffer when there
is data for it, and has it until the program has the bytes: ten thousand idle connections
need none, and the memory of a pool bounds what waits in the port to be taken.

Ownership.  A buffer is free, or lent to an operation, or to the program.  The bytes of a
`RecvMultishot` are copied when a completion leaves the port, and then the buffer goes back:
nobody else sees it.  That of a `RecvLent` belongs to the record as that crosses the door, and
is the program's from the claim of the record on, until the last of whoever looks at the memory
has let go of it.  Operations hold their pool, it the memory and the engine's part of itself, and
what was lent the memory.
"""

from __future__ import annotations

import weakref
from operator import index
from typing import TYPE_CHECKING

from portio import accelerator, errors
from portio.accelerator import PoolFields
from portio.keepers import keep

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
    their peers feel it as every receiver that is slow.  Where the pool has lent to the program,
    that order is not promised.

    Raises ValueError and TypeError for bad arguments, `PortClosedError`, MemoryError, and
    RuntimeError in a forked child.
    """

    __slots__ = ("__weakref__", "_native", "_view", "count")

    #: How many buffers.
    count: int
    #: How many bytes each of them has, which is the most that one completion gives.
    size: int

    def __init__(self, port: Port, count: int, size: int) -> None:
        if hasattr(self, "_keeper"):
            raise RuntimeError(f"{self!r} is in use already")
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
        self._keeper, _ = keep(ffi, native, lib.portio_pool_free)
        self._native: CData = native
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
        if accelerator.lend is not None:
            return length, Lent(*accelerator.lend(self, nbytes))
        ffi = self._port._ffi
        number = nbytes >> 32
        start = ffi.from_buffer(self._port._chars, self._memory, True) + number * self.size
        return length, Lent(memoryview(ffi.buffer(start, length)), Loan(self, start, number))

    def take_back(self, number: int) -> None:
        """A buffer is the program's no more.  Raises nothing."""
        try:
            port, native = self._port, self._native
            if not port._forked:
                # Refused where nothing is left to give back to: the port is closed.
                port._lib.portio_pool_return(port._native, native, number)
        except AttributeError:
            pass  # the collector is taking the pool apart, or its port

    def __repr__(self) -> str:
        return f"<portio.BufferPool {self.count} x {self.size} bytes>"


class Loan:
    """What gives a buffer back when nobody has its memory any more, where C does not.

    Whoever looks at the memory holds `start`, which the collector does not know of: so it ends
    as the last of them does, and not when one of them is found to be garbage, whose finalizers
    may still want it.  The pool is not held: it is not missed when nobody receives with it.

    A signal whose handler raises just as this is called keeps the buffer from its pool; with
    the accelerator, where none of this is Python, none can.
    """

    __slots__ = ("_memory", "_number", "_pool", "_watch", "begun")

    def __init__(self, pool: BufferPool, start: CData, number: int) -> None:
        self._pool = weakref.ref(pool)
        self._memory = pool._memory
        self._number = number
        #: Whether the record was claimed: else the buffer was another's, and still is.
        self.begun = False
        self._watch = weakref.ref(start, self._end)
        _loans.add(self)  # somebody has to have the weak reference, and the memory

    def _end(self, _: object) -> None:
        _loans.discard(self)
        pool = self._pool()
        if self.begun and pool is not None:
            pool.take_back(self._number)


_loans: set[Loan] = set()


class Lent:
    """A piece whose record was not claimed yet."""

    __slots__ = ("loan", "view")

    def __init__(self, view: memoryview, loan: Loan) -> None:
        self.view = view
        self.loan = loan
