"""Memory that the system knows before files are read into it or written from it.

For each transfer the system looks up the pages behind a buffer, and holds them until it is
done, which for a large transfer past the cache is most of its work.  It can do that once,
for memory that is used again and again.

Ownership.  The memory is the program's.  What the engine may know is pinned, like the buffer
of a pending operation (buffers.py); the pin is the port's (`Port._regions`), from before the
engine hears of the memory until after it has said that it has forgotten it.  So it does not
matter where a signal handler raises, in `__del__` too: memory that the engine knows and the
program has given up, and that somebody else is given, would be read into unseen.  Operations
have pins of their own besides.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from portio import errors

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from portio.backends.native import CData
    from portio.port import Port

__all__ = ["Region", "RegisteredBuffer"]

#: The engine's number of some memory, which is 0 when it knows nothing, and the memory's pin.
Region: TypeAlias = "tuple[CData, CData]"


class RegisteredBuffer:
    """Has `port` know the memory of `buffer`, until `close`.

    A `Read` or a `Write` of that port on a file, with one buffer that lies in this memory, may
    cost the system less: any part of it will do, a slice of a memoryview for example.  That
    is all that changes.  It pays for memory that is used again and again: with
    ``portio.open(..., direct=True)``, and in the cache for blocks of 16 KiB and more.  What ends
    as it is submitted, like a quiet read from the cache, does not gain by it.

    The pages are looked up here, which for fresh memory takes a second for each GiB, and the
    port's other operations may have to wait meanwhile: register before there is traffic.  They
    stay in memory, and where the process forks they are copied at once.

    Where the system has no such thing, or refuses, `active` is False, `error` tells why, and
    everything works as without it.  io_uring refuses buffers of more than 1 GiB (EFBIG), more
    than 64 for a port (ENOBUFS), memory that some kinds of files are mapped to (EOPNOTSUPP or
    EFAULT), and, to a user without privileges, more than RLIMIT_MEMLOCK allows (ENOMEM); epoll
    and iocp have none.

    Until `close` the memory can be neither resized nor freed (BufferError), as with a pending
    operation, also where it is not active.  Its pages must stay what they are: ``mmap.madvise``
    with MADV_DONTNEED or MADV_REMOVE would part the memory that the program sees from that
    which the system knows.

    Of a thread-bound port it is made and closed by the owner.  One that is dropped is closed;
    if another thread than the owner drops it, when the owner next associates a handle or
    registers a buffer, or the port is closed.

    Raises TypeError for what has no buffer, BufferError for one that is not contiguous,
    ValueError for an empty one, `PortClosedError`, MemoryError, and RuntimeError in another
    thread than the owner of a thread-bound port and in a forked child.
    """

    __slots__ = ("_error", "_number", "_port")

    def __init__(self, port: Port, buffer: Buffer) -> None:
        lib = port._lib
        port._carry_out_orphans()
        pin = port._from_buffer(port._chars, buffer)
        if not len(pin):
            raise ValueError("an empty buffer cannot be registered")
        number = port._ffi.new("uint32_t *")
        self._error: OSError | None = None
        self._number = number
        self._port = port
        port._regions[id(number)] = number, pin
        # From here on `__del__` does what there is to do.
        refused = lib.portio_region_open(port._native, pin, len(pin), number)
        if refused:
            error = port._refusal(refused, "registering a buffer")
            if not isinstance(error, OSError) or isinstance(error, errors.PortClosedError):
                del pin  # who looks at the exception keeps this frame
                _end(port, id(number))
                raise error
            self._error = error

    @property
    def port(self) -> Port:
        """The port that knows it."""
        return self._port

    @property
    def active(self) -> bool:
        """Whether the system knows the memory: it was not refused, and nothing is closed."""
        port = self._port
        return self._number[0] != 0 and not port.closed and not port._forked

    @property
    def error(self) -> OSError | None:
        """Why the system does not know it; None if it did not refuse."""
        return self._error

    def close(self) -> None:
        """Lets the system forget the memory; operations that are pending in it go on.

        Closing again does nothing.  Raises RuntimeError in another thread than the owner of a
        thread-bound port, and in a forked child.
        """
        port = self._port
        if id(self._number) not in port._regions:
            return
        if not port.closed:
            port._check_thread()
        if refused := _end(port, id(self._number)):
            raise port._refusal(refused, "closing a registered buffer")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._port._forked:
            self.close()

    def __del__(self) -> None:
        port = getattr(self, "_port", None)
        if port is None or port._forked:
            return
        region = id(self._number)
        if _end(port, region):  # it is for the owner to do
            port._orphans.append(partial(_end, port, region))

    def __repr__(self) -> str:
        state = "" if self.active else " inactive"
        return f"<portio.RegisteredBuffer of {self._port!r}{state}>"


def _end(port: Port, region: int) -> int:
    """Has the engine forget a region, and then lets go of its memory; 0, or a refusal.

    Once more does nothing.
    """
    known = port._regions.get(region)
    if known is None:
        return 0
    number, _ = known
    if number[0] and not port.closed:
        lib = port._lib
        refused = lib.portio_region_close(port._native, number)
        # Invalid: another thread has been faster.
        if refused not in (0, lib.PORTIO_CLOSED, lib.PORTIO_INVALID):
            return refused
    port._regions.pop(region, None)
    return 0
