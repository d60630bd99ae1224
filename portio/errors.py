"""The errors of portio, and how a system's error code becomes one of them.

Two families, kept apart on purpose:

- What a program does wrong and can see without asking the system (a wrong type,
  a closed key, a negative size) raises TypeError, ValueError, BufferError or
  RuntimeError from the call that got it.
- What the system answers is an OSError of the subclass that Python has for its
  errno (ConnectionResetError, BrokenPipeError, …), and comes with the completion.

The classes below are OSErrors as well, so `except OSError` around a completion's
result catches every outcome that is not a success.  A cancelled operation has a
class of its own: it is never mistaken for a reset or a closed connection.
"""

from __future__ import annotations

import errno

from portio import system

__all__ = [
    "BackendUnavailableError",
    "NotSupportedError",
    "OperationCancelledError",
    "PortClosedError",
    "from_system",
    "port_closed",
]


class PortClosedError(OSError):
    """The port is closed, or was closed while the call waited (errno EBADF)."""


class OperationCancelledError(OSError):
    """The operation was cancelled before it was done (errno ECANCELED).

    The completion's ``nbytes`` says how many bytes were moved before that.
    """


class NotSupportedError(OSError):
    """What was asked is beyond this system, or this backend (errno ENOTSUP)."""


class BackendUnavailableError(NotSupportedError):
    """No engine can be used here, or not the one that was asked for.

    The text says why, and what to do about it.
    """


def port_closed() -> PortClosedError:
    """A new PortClosedError with its usual text."""
    return PortClosedError(errno.EBADF, "the port is closed")


def from_system(code: int, text: str = "") -> OSError:
    """The OSError for `code`, an error number of the system.

    `text` comes before the system's own description of the error.  The `errno` is
    the portable one; on Windows `winerror` is `code`.
    """
    number, described = system.explain(code)
    if text:
        described = f"{text}: {described}"
    error: OSError
    if number == errno.ECANCELED:
        error = OperationCancelledError(number, described)
    elif number == errno.ENOTSUP:
        error = NotSupportedError(number, described)
    else:
        error = OSError(number, described)  # which picks the subclass for the errno
    system.keep_code(error, code)
    return error
