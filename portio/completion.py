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

from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from portio import errors

if TYPE_CHECKING:
    from portio.keys import CompletionKey
    from portio.operations.base import Operation

__all__ = ["Completion", "error_of"]

T = TypeVar("T")

#: The low half of a record's status: the system's error.
ERROR_MASK = 0xFFFFFFFF


class Completion(Generic[T]):
    """A finished operation, or a posted packet.  Ports make them; read only."""

    # PacketQueue._take fills the slots itself, without an __init__: that call
    # would be a tenth of what an operation costs.
    __slots__ = (
        "__weakref__",
        "_error",
        "_more",
        "_status",
        "_value",
        "key",
        "nbytes",
        "operation",
    )

    #: The operation that has ended; None for a posted packet.
    operation: Operation[T] | None
    #: The key of the operation's handle, or the key that was posted.
    key: CompletionKey | None
    #: How many bytes were moved, also by an operation that failed or was
    #: cancelled half-way; of a posted packet the number that was posted.
    nbytes: int

    _settles: ClassVar[bool] = True  # PacketQueue._take: not a plain operation
    _status: int  # the record's; 0 of most operations, and then _more is not set
    _value: Any  # the result, or the payload of a posted packet
    _more: bool
    _error: OSError

    @property
    def error(self) -> OSError | None:
        """Why the operation failed; None when it did not.

        An OSError of the right subclass, with the system's errno, the operation's
        name and the bytes that were moved in its text.  It is the same object
        each time.
        """
        if not self._status & ERROR_MASK:
            return None
        try:
            return self._error
        except AttributeError:
            self._error = self._make_error()
            return self._error

    @property
    def payload(self) -> object:
        """The object that came with a posted packet; None for an operation."""
        return self._value if self.operation is None else None

    @property
    def last(self) -> bool:
        """Whether this is the operation's last completion.

        False only when a multishot operation has more to come.
        """
        return not self._status or not self._more

    def result(self) -> T:
        """The operation's result; of a posted packet the payload.

        Raises the error of an operation that failed: equal to `error` in class,
        errno and text, but a new exception each time.
        """
        if self._status & ERROR_MASK:
            raise self._make_error()
        value: T = self._value
        return value

    def _make_error(self) -> OSError:
        assert self.operation is not None, "posted packets carry no error"
        return error_of(self.operation, self.key, self._status & ERROR_MASK, self.nbytes)

    def __repr__(self) -> str:
        if self.operation is None:
            return f"<Completion posted key={self.key!r} nbytes={self.nbytes}>"
        name = type(self.operation).__name__
        outcome = f" error={self.error}" if self.error is not None else ""
        return f"<Completion of {name} key={self.key!r} nbytes={self.nbytes}{outcome}>"


def error_of(
    operation: Operation[Any], key: CompletionKey | None, code: int, nbytes: int
) -> OSError:
    """The error of `operation` on `key`, after it had moved `nbytes`."""
    name = type(operation).__name__
    kind = operation.label
    what = kind if kind.endswith(f".{name}") else f"{name} ({kind})"
    where = f" on {key.label}" if key is not None else ""
    moved = f" after {nbytes} bytes" if nbytes > 0 else ""
    return errors.from_system(code, f"{what}{where}{moved}")
