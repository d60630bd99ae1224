"""What every operation is: something to be done once for each submission.

The life of an operation, and who may touch it when:

- *idle*: made, or completed.  It is the program's; fields may be changed.
- *claimed*: a thread is in `Port.submit`.  Claiming is one step (`_token` goes
  from 0 to the token), so of two threads that submit one operation only one
  succeeds.  From here on the fields are read, buffers are pinned (`_pin`).
- *pending*: the port refers to it (`PacketQueue._pending`), and the system works
  on its memory.  The program keeps its hands off the fields and the bytes.
- back to *idle*, when the completion leaves the port: result and status are
  stored, then the pin is dropped, and last the token goes back to 0, because
  from that moment another thread may submit the operation again.

The operation keeps its own result, not the completion: see completion.py.

A program's own class derives from an operation to carry state; it calls
``super().__init__`` before the operation is submitted, and nothing else.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

from portio.buffers import MOST_VECTORS, Block, Vectors, as_sequence
from portio.completion import ERROR_MASK, error_of
from portio.keys import CompletionKey

if TYPE_CHECKING:
    import weakref
    from collections.abc import Iterable

    from portio.backends.native import CData, Library
    from portio.completion import Completion
    from portio.port import Port

__all__ = [
    "FILES",
    "LARGEST",
    "SOCKETS",
    "STREAMS_AND_FILES",
    "STREAM_SOCKETS",
    "ExtendedRequest",
    "Operation",
    "Request",
    "Transfer",
    "bind",
    "check_offset",
    "check_flags",
    "unusable_key",
]

T = TypeVar("T")

#: What portio_submit_one takes: handle, flags, buffer, length, argument.
Request: TypeAlias = "tuple[int, int, CData, int, int]"
#: The same with what else a portio_request has: address, address_length, file.
ExtendedRequest: TypeAlias = "tuple[int, int, CData, int, int, CData, CData, int]"

#: The largest offset, and the largest number of bytes.
LARGEST = 2**63 - 1

#: The types of handle that a kind of operation fits, by their names at the door.
SOCKETS = ("PORTIO_STREAM_SOCKET", "PORTIO_DATAGRAM_SOCKET")
STREAM_SOCKETS = ("PORTIO_STREAM_SOCKET",)
STREAMS_AND_FILES = ("PORTIO_FILE", "PORTIO_PIPE")
FILES = ("PORTIO_FILE",)


class Operation(Generic[T]):
    """One thing to be done by the system; `T` is the type of its result.

    Submitted with `Port.submit`, any number of times, but not again before it has
    completed.  While it is pending its fields must not be changed.
    """

    __slots__ = (
        "_last",
        "_nbytes",
        "_pin",
        "_port",
        "_queued",
        "_status",
        "_token",
        "_value",
        "key",
    )

    #: The key of the handle that it works on.
    key: CompletionKey | None

    # Set in __init__ of each class, without a call to this one, for speed.
    _token: int  # 0: idle
    # Set at submission.
    _port: Port
    _pin: Any  # whatever keeps the memory in place while it is pending
    _queued: bool
    # Set when the completion leaves the port.  _status is not set before that.
    _status: int
    _value: T
    _nbytes: int
    _last: weakref.ref[Completion[T]] | None  # unqueued operations: the one that `wait` gave

    # Of each class; the numbers are the door's, read by `bind`.
    label: ClassVar[str] = "portio.Operation"  # how errors call it
    _kind: ClassVar[int] = 0
    _fits: ClassVar[int] = 0  # bits for the types of handle
    _handles: ClassVar[tuple[str, ...]] = ()
    _extended: ClassVar[bool] = False  # _prepare gives an ExtendedRequest
    _settles: bool = False  # the result is not the number of bytes: call _settle
    _moves: ClassVar[bool] = True  # a record's nbytes are bytes

    @property
    def pending(self) -> bool:
        """Whether it was submitted and its completion has not left the port yet."""
        return self._token != 0

    def cancel(self) -> None:
        """Asks for the end of the operation, and returns at once.

        It still completes exactly once: as usual if it won the race, with all its
        data, or with `OperationCancelledError`.  Does nothing when it is not
        pending.  Any thread may call it, also for a thread-bound port.

        Raises RuntimeError in a forked child.
        """
        token = self._token
        if token:
            self._port._cancel(token)

    def wait(self, timeout: float | None = None) -> Completion[T] | None:
        """Waits for an operation that was submitted with ``queued=False``.

        Gives its completion, or None when `timeout` seconds have passed; None
        waits for ever, 0 does not wait, and it never returns early.  Threads that
        wait for the same operation get the same completion, and so does who asks
        again later, until the next submission.

        Raises RuntimeError when the operation was never submitted, or submitted
        to the port's queue, in another thread than the owner of a thread-bound
        port, and in a forked child; `PortClosedError` when the port closes first;
        TypeError or ValueError for a bad time-out.
        """
        try:
            queued = self._queued
        except AttributeError:
            raise RuntimeError(f"{self!r} was never submitted") from None
        if queued:
            raise RuntimeError(f"{self!r} was submitted to the port's queue; use Port.get")
        return self._port._await(self, timeout)

    def result(self) -> T:
        """The result of its last completion.

        Raises the error that it completed with, a new exception each time; and
        RuntimeError while it is pending, and when it has never completed.
        """
        if self._token:
            raise RuntimeError(f"{self!r} is pending")
        try:
            status = self._status
        except AttributeError:
            raise RuntimeError(f"{self!r} has not completed") from None
        if status & ERROR_MASK:
            raise error_of(self, self.key, status & ERROR_MASK, self._nbytes)
        return self._value

    # ---- for the port ----

    def _prepare(self, port: Port) -> Request:
        """Checks the fields, pins the memory, and says what to ask the engine for.

        Called when the operation is claimed; stores what has to live as long as
        it is pending in `_pin`.  Raises TypeError, ValueError or BufferError.
        """
        raise TypeError(f"{self!r} is no kind of operation; derive from one of portio's")

    def _prepare_extended(self, port: Port) -> ExtendedRequest:
        """The same for operations that need all fields of a portio_request."""
        return (*self._prepare(port), port._null, port._null, 0)

    def _settle(self, nbytes: int, status: int) -> T:
        """The result of a record; may be called again for the same record.

        A signal may interrupt the port between this call and its next step; the
        record is then carried out anew (packets.py, on interrupts).
        """
        raise NotImplementedError

    def _drop(self) -> None:
        """The port was closed before the completion was taken."""
        self._pin = None
        if hasattr(self, "_status"):
            del self._status
        self._token = 0

    def __repr__(self) -> str:
        state = " pending" if getattr(self, "_token", 0) else ""
        key = getattr(self, "key", None)
        where = f" on {key.label}" if isinstance(key, CompletionKey) else ""
        return f"<{type(self).__name__}{where}{state}>"


class Transfer(Operation[T]):
    """An operation that moves bytes between a handle and buffers: what they share."""

    __slots__ = ()

    def _pin_sequence(
        self, port: Port, buffers: object, writable: bool, refused: TypeError | None = None
    ) -> tuple[int, CData, int]:
        """Pins a sequence of buffers; gives flags, buffer and length of the request.

        `refused` is what cffi said when it was offered the sequence as a buffer.
        """
        key = self.key
        assert key is not None
        sequence = as_sequence(buffers, refused or TypeError())
        if key._message_based and len(sequence) > MOST_VECTORS:
            return self._pin_message(port, sequence, writable)
        vectors = Vectors(port._ffi, port._chars, sequence, writable)
        self._pin = vectors
        if vectors.count == 0:
            return 0, port._null, 0
        return port._lib.PORTIO_VECTORED, vectors.array, vectors.count

    def _pin_message(
        self, port: Port, buffers: Iterable[Any], writable: bool
    ) -> tuple[int, CData, int]:
        """The same for a message of more buffers than the system takes at once."""
        if writable:
            block = Block(port._ffi, port._chars, buffers)
            self._pin = block
            return 0, block.pin, len(block.pin)
        joined = b"".join(buffers)
        self._pin = joined
        return 0, joined, len(joined)


def unusable_key(operation: Operation[Any], port: Port) -> Exception:
    """Why `operation` cannot be submitted to `port` with the key that it has."""
    key: object = operation.key
    if not isinstance(key, CompletionKey):
        return TypeError(f"{operation.label} needs a CompletionKey, not {type(key).__name__!r}")
    if key.closed:
        return ValueError(f"{operation.label}: {key!r} is closed")
    if key.port is None:
        return ValueError(f"{operation.label}: {key!r} has no handle")
    if key.port is not port:
        return ValueError(f"{operation.label}: {key!r} is of another port")
    names = [name.removeprefix("PORTIO_").replace("_", " ").lower() for name in operation._handles]
    return TypeError(f"{operation.label} needs a {' or a '.join(names)}; {key!r} is none")


def check_flags(flags: object) -> int:
    """Message flags, checked: TypeError, ValueError."""
    number = index(flags)  # type: ignore[arg-type]
    if not 0 <= number <= 0x7FFFFFFF:
        raise ValueError(f"flags must be from 0 to 0x7fffffff, not {number}")
    return number


def check_offset(offset: object, name: str = "offset") -> int:
    """A position in a file, or a number of bytes, checked: TypeError, ValueError."""
    number = index(offset)  # type: ignore[arg-type]
    if number < 0:
        raise ValueError(f"{name} must not be negative: {number}")
    if number > LARGEST:
        raise ValueError(f"{name} must be below 2**63: {number}")
    return number


def bind(lib: Library) -> None:
    """Reads the door's numbers for every kind of operation from an extension.

    They are the same in each, since one file describes the door for all of them.
    """
    for kind in _kinds(Operation):
        name = "PORTIO_" + kind.label.rpartition(".")[2].upper()
        kind._kind = getattr(lib, name)
        kind._fits = sum(1 << getattr(lib, handle) for handle in kind._handles)


def _kinds(base: type[Operation[Any]]) -> list[type[Operation[Any]]]:
    """The classes that name a kind: those with a label of their own."""
    found = []
    for derived in base.__subclasses__():
        if derived.__module__.startswith(__package__) and "label" in vars(derived):
            found.append(derived)
        found += _kinds(derived)
    return found
