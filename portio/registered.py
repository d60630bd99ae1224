"""Memory that the system knows before files are read into it or written from it.

For each transfer the system looks up the pages behind a buffer, and holds them until it is
done, which for a large transfer past the cache is most of its work.  It can do that once,
for memory that is used again and again.

Ownership.  The memory is the program's.  While it is registered it is pinned like the buffer
of a pending operation (buffers.py); operations in it have pins of their own besides.  The
engine's number of it is written and erased in C, so no signal handler that raises can come
between what the system knows and what this object knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from portio import errors

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from portio.port import Port

__all__ = ["RegisteredBuffer"]


class RegisteredBuffer:
    """Has `port` know the memory of `buffer`, until `close`.

    A `Read` or a `Write` of that port on a file, with one buffer that lies in this memory,
    costs the system less: any part of it will do, a slice of a memoryview for example.  That
    is all that changes.  It pays for memory that is used again and again, above all with
    ``portio.open(..., direct=True)``; the pages are looked up here, and stay in memory.

    Where the system has no such thing, or refuses, `active` is False, `error` tells why, and
    everything works as without it.  io_uring refuses buffers of more than 1 GiB (EFBIG), more
    than 64 for a port (ENOBUFS), mapped files (EOPNOTSUPP or EFAULT), and, to a user without
    privileges, more than RLIMIT_MEMLOCK allows (ENOMEM); epoll and iocp have none.

    Until `close` the memory can be neither resized nor freed (BufferError), as with a pending
    operation, also where it is not active.  Its pages must stay what they are: ``mmap.madvise``
    with MADV_DONTNEED would part the memory that the program sees from that which the system
    knows.

    Of a thread-bound port it is made and closed by the owner.  One that is dropped is closed.

    Raises TypeError for what has no buffer, BufferError for one that is not contiguous,
    ValueError for an empty one, `PortClosedError`, MemoryError, and RuntimeError in another
    thread than the owner of a thread-bound port and in a forked child.
    """

    __slots__ = ("_error", "_number", "_pin", "_port")

    def __init__(self, port: Port, buffer: Buffer) -> None:
        lib = port._lib
        port._carry_out_orphans()
        pin = port._from_buffer(port._chars, buffer)
        if not len(pin):
            raise ValueError("an empty buffer cannot be registered")
        self._error: OSError | None = None
        self._number = port._ffi.new("uint32_t *")
        self._pin = pin
        self._port = port
        # From here on `__del__` does what there is to do.
        refused = lib.portio_region_open(port._native, pin, len(pin), self._number)
        if refused:
            error = port._refusal(refused, "registering a buffer")
            if not isinstance(error, OSError) or isinstance(error, errors.PortClosedError):
                self._pin = None
                del pin  # who looks at the exception keeps this frame
                raise error
            self._error = error

    @property
    def port(self) -> Port:
        """The port that knows it."""
        return self._port

    @property
    def active(self) -> bool:
        """Whether the system knows the memory: it was not refused, and nothing is closed."""
        return self._number[0] != 0 and not self._port.closed

    @property
    def error(self) -> OSError | None:
        """Why the system does not know it; None if it did not refuse."""
        return self._error

    def close(self) -> None:
        """Lets the system forget the memory; operations that are pending in it go on.

        Closing again does nothing.  Raises
        RuntimeError in another thread than the owner of a thread-bound port, and in a forked
        child.
        """
        port = self._port
        if self._pin is None:
            return
        if not port.closed:
            port._check_thread()
        if self._number[0] and not port.closed:
            lib = port._lib
            refused = lib.portio_region_close(port._native, self._number)
            # Invalid: another thread has been faster.
            if refused not in (0, lib.PORTIO_CLOSED, lib.PORTIO_INVALID):
                raise port._refusal(refused, "closing a registered buffer")
        self._pin = None

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
        if port is not None and self._number[0]:
            port._forget_region(self._number, self._pin)

    def __repr__(self) -> str:
        state = "" if self.active else " inactive"
        return f"<portio.RegisteredBuffer of {self._port!r}{state}>"
