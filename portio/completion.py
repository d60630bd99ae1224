"""Completions: what comes out of a port.

One completion tells of one operation that has ended, or of one packet that a
program posted.  It is made when the packet leaves the port and belongs to
whoever took it.  It refers to its operation, never the other way round: an
operation and its completion are no reference cycle, and both are freed, with
the buffers that they hold, as soon as the program drops them.

Errors are made on demand, since most completions have none and many programs
only count those that have.  `result` raises a new exception each time: an
exception that is raised keeps its traceback, the traceback its frames, and those
the sockets and buffers in their variables; a cached one would keep them as long
as the completion lives.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from portio import accelerator, errors

if TYPE_CHECKING:
    from portio.keys import CompletionKey
    from portio.operations.base import Operation

__all__ = ["DROPPED", "Completion", "Outcome", "completed", "error_of", "succeeded"]

T = TypeVar("T")

#: What C keeps of a turn, for an outcome: just its result, a piece of a stream or the key of a
#: connection.
RESULTS = (bytes, memoryview, accelerator.KeyFields)
#: The low half of a record's status: the system's error.
ERROR_MASK = 0xFFFFFFFF


class Outcome(accelerator.OutcomeFields):
    """How an operation has ended, when there is more to say than a number of bytes."""

    __slots__ = ()

    def __init__(
        self,
        error: int,
        nbytes: int,
        value: Any,
        more: bool = False,  # noqa: FBT001, FBT002 (keywords take longer)
        queued: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        #: The system's error; 0 for success.
        self.error = error
        #: Bytes moved.
        self.nbytes = nbytes
        #: The result of a success; the payload of a posted packet.
        self.value = value
        #: Whether the operation goes on.
        self.more = more
        #: Whether it went through the port's queue.
        self.queued = queued
        #: The completion that `Operation.wait` gave, if somebody still has it; else None.
        self.last: weakref.ref[Completion[Any]] | None = None


#: The outcome of an operation whose port was closed before it was taken.
DROPPED = Outcome(0, 0, None)

_again = threading.Lock()


def renew_lock() -> None:
    """Makes the lock new, in a forked child: a thread that does not exist there may hold it."""
    global _again  # noqa: PLW0603
    _again = threading.Lock()


class Completion(accelerator.CompletionFields, Generic[T]):
    """A finished operation, or a posted packet.  Ports make them; read only."""

    # PacketQueue fills the slots itself: a call of __init__ would be a tenth
    # of what an operation costs.
    __slots__ = ("__weakref__",)

    #: The operation that has ended; None for a posted packet.
    operation: Operation[T] | None
    #: The key of the operation's handle, or the key that was posted.
    key: CompletionKey | None
    #: How many bytes were moved, also by an operation that failed or was
    #: cancelled half-way; of a posted packet the number that was posted.
    nbytes: int

    # None for a success whose result is nbytes, and for a packet without payload; bytes,
    # memory and keys are what came of a turn of an operation that goes on.
    _outcome: Outcome | bytes | memoryview | CompletionKey | None
    _error: OSError  # set when it was asked for

    @property
    def error(self) -> OSError | None:
        """Why the operation failed; None when it did not.

        An OSError of the right subclass, with the system's errno, the operation's
        name and the bytes that were moved in its text.  It is the same object
        each time.
        """
        outcome = self._outcome
        if outcome is None or isinstance(outcome, RESULTS) or not outcome.error:
            return None
        try:
            return self._error
        except AttributeError:
            self._error = self._make_error(outcome)
            return self._error

    @property
    def payload(self) -> object:
        """The object that came with a posted packet; None for an operation."""
        outcome = self._outcome
        return outcome.value if self.operation is None and isinstance(outcome, Outcome) else None

    @property
    def last(self) -> bool:
        """Whether this is the operation's last completion.

        False only when a multishot operation has more to come (contract O16).
        """
        outcome = self._outcome
        return not isinstance(outcome, RESULTS) and (outcome is None or not outcome.more)

    def result(self) -> T:
        """The operation's result; of a posted packet the payload.

        Raises the error of an operation that failed: equal to `error` in class,
        errno and text, but a new exception each time.
        """
        outcome = self._outcome
        if outcome is None:
            plain: Any = self.nbytes if self.operation is not None else None
            return plain  # type: ignore[no-any-return]
        if isinstance(outcome, RESULTS):
            piece: Any = outcome
            return piece  # type: ignore[no-any-return]
        if outcome.error:
            raise self._make_error(outcome)
        value: T = outcome.value
        return value

    def _make_error(self, outcome: Outcome) -> OSError:
        assert self.operation is not None, "posted packets carry no error"
        return error_of(self.operation, self.key, outcome)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a completion cannot be copied")

    def __repr__(self) -> str:
        if self.operation is None:
            return f"<Completion posted key={self.key!r} nbytes={self.nbytes}>"
        name = type(self.operation).__name__
        outcome = f" error={self.error}" if self.error is not None else ""
        return f"<Completion of {name} key={self.key!r} nbytes={self.nbytes}{outcome}>"


accelerator.install(Completion, "result")


def succeeded(operation: Operation[T]) -> Completion[T]:
    """The completion that an operation would have had, which has succeeded without."""
    nbytes: Any = operation._outcome
    return _make(operation, nbytes, None)


def _make(operation: Operation[T], nbytes: int, outcome: Outcome | None) -> Completion[T]:
    completion: Completion[T] = Completion()
    completion.operation = operation
    completion.key = operation.key
    completion.nbytes = nbytes
    completion._outcome = outcome
    return completion


def completed(operation: Operation[T]) -> Completion[T]:
    """The completion that an idle operation has had, which was not queued.

    The same object as before while anybody has it, else one that nobody can tell
    from it.  Raises RuntimeError when there was none, and `PortClosedError` when
    the port was closed before.
    """
    outcome = getattr(operation, "_outcome", None)
    if outcome is DROPPED:
        raise errors.port_closed()
    if outcome is None:
        raise RuntimeError(f"{operation!r} was never submitted")
    if not isinstance(outcome, Outcome) or outcome.queued:
        raise RuntimeError(f"{operation!r} was submitted to the port's queue; use Port.get")
    with _again:
        completion = outcome.last() if outcome.last is not None else None
        if completion is None:
            completion = _make(operation, outcome.nbytes, outcome)
            outcome.last = weakref.ref(completion)
        return completion


def error_of(operation: Operation[Any], key: CompletionKey | None, outcome: Outcome) -> OSError:
    """The error that `operation` on `key` has ended with."""
    name = type(operation).__name__
    kind = operation.label
    what = kind if kind.endswith(f".{name}") else f"{name} ({kind})"
    where = f" on {key.label}" if key is not None else ""
    moved = f" after {outcome.nbytes} bytes" if outcome.nbytes > 0 else ""
    return errors.from_system(outcome.error, f"{what}{where}{moved}")
