"""Pools of buffers for receives that go on.

A receive with a buffer of its own holds that buffer as long as it is pending, which for
an idle connection is all the time.  A receive with a pool is lent a buffer when there
is data for it, and has it until the program has the bytes: ten thousand idle connections
need none, and the memory of a pool bounds what waits in the port to be taken.

Ownership.  The memory is the pool's, and nobody else sees it: the bytes are copied when
a completion leaves the port, before the buffer goes back.  Operations that are pending
hold their pool, and so does the engine's part of the pool the memory.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING

from portio import errors
from portio.accelerator import PoolFields

if TYPE_CHECKING:
    from portio.backends.native import CData
    from portio.port import Port

__all__ = ["BufferPool"]

MOST_BYTES = 2**31 - 1  # of one buffer
MOST_BUFFERS = 2**20


class BufferPool(PoolFields):
    """`count` buffers of `size` bytes each, for the receives of `port`.

    A receive has a buffer from the moment that there is data for it until its completion
    leaves the port.  When all are in use, further receives wait, in the order in which
    they needed one, until one comes back: their peers feel it as every receiver that is
    slow.

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
        length = nbytes & 0xFFFFFFFF
        start = (nbytes >> 32) * self.size
        return length, bytes(self._view[start : start + length])

    def __repr__(self) -> str:
        return f"<portio.BufferPool {self.count} x {self.size} bytes>"
