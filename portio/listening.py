"""Signals that come as the main thread falls asleep (contract P8).

Python's handler of a signal only makes a note; the program's handler runs when
the main thread looks at the notes, which it does after every call.  A signal that
comes after the last look, and before the thread sleeps in the system, would be
noticed only when something else ends the sleep; and so would one that the system
gives to another thread.  To block the signals until the thread sleeps, as
``ppoll`` does, helps only against the first.

So the main thread sleeps with a *wakeup descriptor* (`signal.set_wakeup_fd`): in
whichever thread Python's handler runs, it writes a byte there.  `listen`

1. makes our pipe the wakeup descriptor,
2. looks at the notes once more: what comes from now on is in the pipe,
3. calls the engine, which sleeps until there is a packet or a byte,
4. puts back the descriptor that was there before, and gives it the bytes.

The engine asks for this only when it has nothing and would have to sleep
(PORTIO_WOULD_SLEEP), so nothing of it costs anything elsewhere, and nobody finds
our descriptor in place but a handler that runs within 2 and 3.  It may do what it
likes there: set another descriptor, which stays then; wait at a port itself; fork;
raise.

What makes step 4 certain.  A handler may raise after any call, and again while the
first exception is on its way.  So the former descriptor must get from the call that
replaces it into a variable, and from there into the call that puts it back, without
a call of the evaluation loop itself.  The step of a `for` statement is none: `_set`
and `_put_back` are endless iterators whose every step is such a call.

The pipe is one for the process, and made when it is first needed.  A forked child
drops it, or its signals would wake the parent.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import repeat
from threading import get_ident
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portio.backends.native import CData
    from portio.engine import Engine

__all__ = ["listen"]

CAPACITY = 65536  # of a pipe, in bytes

#: The ends of the pipe; -1: there is none yet.
_reader = -1
_writer = -1
#: What `_put_back` shall put back, the innermost call of `listen` last.
_formers: list[int] = []
#: The program's own wakeup descriptor while ours is in place; -1: it has none.
_program = -1

#: Each step makes the pipe the wakeup descriptor, and gives the former one.  None: not all that
#: a wait needs has been made.
_set: Iterator[int] | None = None
#: Each step puts back the last of `_formers`, and gives what was there until then.
_put_back: Iterator[int] = map(signal.set_wakeup_fd, iter(_formers.pop, None))


def listen(port: Engine, token: int, records: CData, limit: int, nanoseconds: int) -> int:
    """portio_wait for `token`, or portio_get when it is 0, for the main thread."""
    global _program  # noqa: PLW0603  (it is the process's, like the wakeup descriptor)
    if _set is None:
        _open()
    reader = _reader
    writer = _writer
    former: int | None = None
    count = -1
    try:
        try:
            # No call from here …
            for former in _set or ():  # noqa: B007
                break
        except (ValueError, OSError):  # not the main interpreter; or somebody closed the pipe
            reader = -1
        if former is not None:
            formers = _formers
            formers += (former,)
            if former != writer:  # else a handler waits, within another call of `listen`
                _program = former
        # … to here, where Python looks.
        get_ident()
        # And none from here to the engine: in a child that a handler has forked,
        # `_lib` raises.
        if token:
            count = port._lib.portio_wait_until(port._native, token, records, nanoseconds, reader)
        else:
            count = port._lib.portio_get_until(port._native, records, limit, nanoseconds, reader)
        return count
    finally:
        if former is not None:
            found = writer
            try:
                for found in _put_back:  # noqa: B007
                    break
            except (ValueError, OSError):  # a handler has closed the program's descriptor
                found = signal.set_wakeup_fd(-1)
            if found != writer:
                signal.set_wakeup_fd(found)  # a handler has set it: it shall stay
            if count < 0 or _program >= 0:
                _pass_on()


def _open() -> None:
    if sys.platform == "win32":  # the engine there hears Ctrl-C by itself, and never asks
        return
    global _reader, _writer, _set  # noqa: PLW0603
    if _writer < 0:  # else a handler has raised between these steps
        made = map(os.pipe2, (os.O_NONBLOCK | os.O_CLOEXEC,))
        try:  # with no call in it: what a handler raises may be an OSError
            for ends in made:
                _reader, _writer = ends
                break
        except OSError:  # no descriptors left: without it, for now
            return
    _set = map(signal.set_wakeup_fd, repeat(_writer))


def _pass_on() -> None:
    """Empties the pipe, into the program's descriptor if it has one."""
    reader = _reader
    if reader < 0:  # a handler has forked, and this is the child
        return
    taken = map(os.read, (reader,), (CAPACITY,))
    step: Iterator[object] = map(os.write, (_program,), taken) if _program >= 0 else taken
    try:  # as above; and no exception can come between taking them and giving them
        for _ in step:
            break
    except OSError:  # there is nothing; or no room, and Python drops them too
        pass


def _drop_pipe() -> None:
    """In a forked child: the pipe is the parent's."""
    global _reader, _writer, _set  # noqa: PLW0603
    if _writer < 0:
        return
    ends = _reader, _writer
    _reader = _writer = -1
    _set = None
    try:
        current = signal.set_wakeup_fd(-1)
        if current in ends:  # the parent sleeps, or it is a handler that has forked
            current = _program
        if current >= 0:
            signal.set_wakeup_fd(current)
    except (ValueError, OSError):
        pass
    for end in ends:
        os.close(end)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_pipe)
