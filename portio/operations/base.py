"""What every operation is: something to be done once for each submission.

The life of an operation, and who may touch it when:

- *idle*: made, or completed.  It is the program's; fields may be changed.
- *pending*, from a submission until its completion leaves the port: `_entry` is
  what the port knows about it.  The system works on its memory, which the entry's
  pin holds in place.  The program keeps its hands off the fields and the bytes.

`Port.submit` asks `_prepare` for the request and for the entry, which changes
nothing in the operation, and then claims the operation: `_entry` goes from None to the entry in
one step, so of two threads that submit one operation only one succeeds.  When the
completion leaves the port the outcome is stored first, and `_entry` goes back to
None last, because from then on another thread may submit it again.

The operation keeps its own outcome, not the completion: see completion.py.

A program's own class derives from an operation to carry state; it calls
``super().__init__`` before the operation is submitted, and nothing else.

Speed.  Threads and classes meet in `submit` and in `PacketQueue._take`, where
Python cannot specialise the access to an operation's attributes; so these touch
`_entry` and `_outcome` only, everything else travels in tuples, and class
attributes are avoided.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeAlias, TypeVar

from portio import accelerator
from portio.accelerator import OperationFields
from portio.buffers import MOST_VECTORS, Block, Vectors, as_sequence
from portio.completion import DROPPED, Outcome, completed, error_of
from portio.keys import CompletionKey
from portio.operations import numbers
from portio.timeouts import from_optional

if TYPE_CHECKING:
    from collections.abc import Callable

    from portio.backends.native import CData
    from portio.completion import Completion
    from portio.engine import Engine
    from portio.unqueued import UnqueuedOperations

__all__ = [
    "LARGEST",
    "QUEUED",
    "QUIET",
    "UNQUEUED",
    "Entry",
    "ExtendedOperation",
    "Operation",
    "Prepared",
    "PreparedFully",
    "Transfer",
    "check_flags",
    "check_offset",
    "no_result",
    "unusable_key",
]

T = TypeVar("T")

#: Turns a record (bytes, error) into the bytes that were moved and the result.  It
#: may be called again for the same record: when a signal interrupts the port before
#: its next step, the record is carried out anew (packets.py).  None: the result is
#: the number of bytes.
Settle: TypeAlias = "Callable[[int, int], tuple[int, Any]] | None"

#: What a port knows about a pending operation: the operation, its key, how to
#: settle, the pin, the token, the port, and what becomes of its packet.
Entry: TypeAlias = (
    "tuple[Operation[Any], CompletionKey | None, Settle, Any, int, UnqueuedOperations, int]"
)

#: The arguments of portio_submit_one: the port, kind, flags, handle, token, buffer,
#: length, argument.
Request: TypeAlias = "tuple[CData, int, int, int, int, CData, int, int]"
#: What `Operation._prepare` gives; no entry for an operation that needs
#: `_prepare_extended`.
Prepared: TypeAlias = "tuple[Entry | None, Request]"
#: The same with what else a portio_request has: address, address_length, file.
PreparedFully: TypeAlias = "tuple[tuple[Entry, Request], tuple[CData, CData, int]]"

#: What `_prepare` gives for those.
EXTENDED: Prepared = None, (None, 0, 0, 0, 0, None, 0, 0)

# What becomes of the packet of an operation; the door's flags for it.
QUEUED = 0  # it leaves through the port
UNQUEUED = 1  # it waits for Operation.wait
QUIET = 8  # it leaves through the port, but there is none when the operation succeeds

#: The largest offset, and the largest number of bytes.
LARGEST = 2**63 - 1


class Operation(OperationFields, Generic[T]):
    """One thing to be done by the system; `T` is the type of its result.

    Submitted with `Port.submit`, any number of times, but not again before it has
    completed.  While it is pending its fields must not be changed.
    """

    __slots__ = ()

    #: The key of the handle that it works on.
    key: CompletionKey | None

    # Each class sets it in its __init__, without a call to this one, for speed.
    _entry: Entry | None  # None: idle
    # Set when a completion leaves the port: a number of bytes, or more than that.
    _outcome: int | Outcome

    #: How errors call it.
    label: ClassVar[str] = "portio.Operation"
    # Whether all that the engine does of it is brief (accelerator/submit.c).
    _brief: ClassVar[bool] = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        accelerator.examine(cls)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an operation cannot be copied: make a new one")

    @property
    def pending(self) -> bool:
        """Whether it was submitted and its completion has not left the port yet."""
        return self._entry is not None

    def cancel(self) -> None:
        """Asks for the end of the operation, and returns at once.

        It still completes exactly once: as usual if it won the race, with all its
        data, or with `OperationCancelledError`.  Does nothing when it is not
        pending.  Any thread may call it, also for a thread-bound port.

        Raises RuntimeError in a forked child.
        """
        entry = self._entry
        if entry is not None:
            entry[5]._cancel(entry[4])

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
        nanoseconds = from_optional(timeout)
        entry = self._entry
        if entry is None:
            return completed(self)
        if entry[6] != UNQUEUED:
            raise RuntimeError(f"{self!r} was submitted to the port's queue; use Port.get")
        return entry[5]._await(self, entry, nanoseconds)

    def result(self) -> T:
        """The result of its last completion.

        Raises the error that it completed with, a new exception each time; and
        RuntimeError while it is pending, and when it has never completed.
        """
        if self._entry is not None:
            raise RuntimeError(f"{self!r} is pending")
        outcome: Any = getattr(self, "_outcome", DROPPED)
        if not isinstance(outcome, Outcome):
            return outcome  # type: ignore[no-any-return]
        if outcome is DROPPED:
            raise RuntimeError(f"{self!r} has not completed")
        if outcome.error:
            raise error_of(self, self.key, outcome)
        value: T = outcome.value
        return value

    # ---- for the port ----

    def _prepare(self, port: UnqueuedOperations, token: int, mode: int) -> Prepared:  # noqa: ARG002
        """Checks the fields, pins the memory, and says what to ask the engine for.

        Gives the port's entry and the engine's request, as tuples that nobody has
        to take apart.  Changes nothing in the operation, which may be pending for
        all it knows.  Raises TypeError, ValueError or BufferError.
        """
        raise TypeError(f"{self!r} is no kind of operation; derive from one of portio's")

    def _prepare_extended(self, port: UnqueuedOperations, token: int, mode: int) -> PreparedFully:
        """The same with all fields of a portio_request, where `_prepare` gives no entry."""
        raise NotImplementedError

    def _next_turn(self, entry: Entry, token: int) -> Entry:
        """The entry for the next turn of a multishot operation (turns.py)."""
        raise NotImplementedError

    def __repr__(self) -> str:
        state = " pending" if getattr(self, "_entry", None) is not None else ""
        key = getattr(self, "key", None)
        where = f" on {key.label}" if isinstance(key, CompletionKey) else ""
        return f"<{type(self).__name__}{where}{state}>"


accelerator.install(Operation, "pending")


class Transfer(Operation[T]):
    """An operation that moves bytes between a handle and buffers: what they share."""

    __slots__ = ()

    def _pin(
        self, port: Engine, buffers: object, *, writable: bool
    ) -> tuple[int, CData, int, Any, Settle]:
        """Pins one buffer or a sequence; gives what `_pin_sequence` gives."""
        from_buffer = port._from_buffer
        try:
            pin = from_buffer(port._chars, buffers, writable)
        except TypeError as refused:
            return self._pin_sequence(port, buffers, writable=writable, refused=refused)
        return 0, pin, len(pin), pin, None

    def _pin_sequence(
        self, port: Engine, buffers: object, *, writable: bool, refused: TypeError
    ) -> tuple[int, CData, int, Any, Settle]:
        """Pins a sequence of buffers.

        Gives flags, buffer and length of the request, the pin, and how to settle.
        `refused` is what cffi said when it was offered the sequence as a buffer.
        """
        key = self.key
        assert key is not None
        sequence = as_sequence(buffers, refused)
        if key._message_based and len(sequence) > MOST_VECTORS:
            if writable:
                block = Block(port._ffi, port._chars, sequence)
                return 0, block.pin, len(block.pin), block, block.settle
            joined = b"".join(sequence)
            return 0, joined, len(joined), joined, None
        vectors = Vectors(port._ffi, port._chars, sequence, writable=writable)
        if vectors.count == 0:
            return 0, port._null, 0, None, None
        return numbers.VECTORED, vectors.array, vectors.count, vectors, None


class ExtendedOperation(Transfer[T]):
    """An operation that needs all fields of a portio_request."""

    __slots__ = ()

    def _prepare(self, port: UnqueuedOperations, token: int, mode: int) -> Prepared:  # noqa: ARG002
        return EXTENDED


def no_result(nbytes: int, error: int) -> tuple[int, None]:  # noqa: ARG001
    """Settles operations whose result is None."""
    return 0, None


def unusable_key(operation: Operation[Any], port: Engine, needed: str = "") -> Exception:
    """Why `operation` cannot be submitted to `port` with the key that it has.

    `needed` says what its handle has to be.
    """
    key: object = operation.key
    if not isinstance(key, CompletionKey):
        return TypeError(f"{operation.label} needs a CompletionKey, not {type(key).__name__!r}")
    if key.closed:
        return ValueError(f"{operation.label}: {key!r} is closed")
    if key.port is None:
        return ValueError(f"{operation.label}: {key!r} has no handle")
    if key.port is not port:
        return ValueError(f"{operation.label}: {key!r} is of another port")
    if not key.means(key._descriptor):
        return ValueError(f"{operation.label}: the handle of {key!r} was closed behind its back")
    return TypeError(f"{operation.label} needs {needed}; {key!r} is none")


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
