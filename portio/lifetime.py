"""The ends of ports that nobody closed: collection, exit, fork.

Collected while open.  `Port.__del__` warns and closes.  A thread-bound port can
only be closed by its owner, or when that thread has ended; if the collector ran
in another thread, the port goes to the graveyard, alive with all its buffers,
because the system may still write to them.  The next port that is created
anywhere, and the exit, try again.

Exit.  All open ports are closed before the interpreter takes its objects apart,
unless daemon threads still run: one of them may be waiting at a port, and Python
does not wake such threads to end, it only never lets them run again.  Then the
ports are made immortal instead, since their buffers must outlive the interpreter;
the system ends the operations when the process ends.

Fork.  A child has copies of the parent's objects, but the rings, the threads and
the operations are the parent's.  Every port is disowned in the child: it raises
on every use, frees nothing, and no destructor of it reaches C.  Locks of the
process are made anew: a thread that is not in the child may have held one.  Only to leave a
`with` block that the parent entered is no use; it does nothing.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import TYPE_CHECKING

from portio import completion, submission
from portio.registry import registry

if TYPE_CHECKING:
    from portio.port import Port

__all__ = ["bury", "close_graves", "enter", "has_ended"]

_open: weakref.WeakSet[Port] = weakref.WeakSet()
_graveyard: list[Port] = []


def enter(port: Port) -> None:
    """From now on `port` is closed at exit and disowned in a forked child."""
    _open.add(port)


def bury(port: Port) -> None:
    """Keeps a port that was collected, but cannot be closed yet."""
    _graveyard.append(port)


def close_graves() -> None:
    """Closes the ports in the graveyard whose owners have ended."""
    for port in _graveyard[:]:
        if port._close_if_allowed() and port in _graveyard:
            _graveyard.remove(port)


def has_ended(thread: threading.Thread, native_id: int) -> bool:
    """Whether a thread has ended; False when in doubt."""
    if isinstance(thread, threading._DummyThread):  # not started by Python
        tasks = "/proc/self/task"
        return os.path.isdir(tasks) and not os.path.exists(f"{tasks}/{native_id}")
    return not thread.is_alive()


@atexit.register
def _close_all() -> None:
    alone = threading.active_count() == 1
    for port in [*_open, *_graveyard]:
        if not (alone and port._close_if_allowed()):
            _make_immortal(port)


def _make_immortal(port: Port) -> None:
    try:
        import ctypes
    except ImportError:
        _immortal.append(port)  # the best that is left: it dies with this module
        return
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(port))


_immortal: list[Port] = []


def _disown_all() -> None:
    registry.forget_all()
    completion.renew_lock()
    submission.renew_lock()
    ports = [*_open, *_graveyard]
    _open.clear()
    _graveyard.clear()
    for port in ports:
        port._disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
