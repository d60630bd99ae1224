"""How the completions of a port reach a trio run: two ways behind one interface.

A *wake* has the port's packets carried to one function in trio's thread, `deliver`,
and sees to it that operations that were started go on.  A `TrioPort` makes one and
knows nothing of how it works.

- base.py: the interface, and what both ways share;
- descriptor.py (Linux): trio watches the port's descriptor;
- thread.py (Windows, where a port has no descriptor): a thread waits in the port.

`ThreadWake` works on Linux as well, with a port that is not bound to a thread:
PORTIO_TRIO_WAKE=thread asks for it, to test on one system what the other does.

The end.  Whoever closes the port, its wake goes down with it: tasks that wait are told,
the instrument is taken away, and trio forgets a descriptor *before* the port gives up
its number, which may be given out again at once.  An error that carrying packets meets,
of which no operation could be told, comes to the same: the wake closes the port, so
that nothing is pending any more when the tasks are let go.

Who may.  Everything here is called in trio's thread, and in the run that has made the
port, except for `ThreadWake._serve`.  `check_run` refuses others.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from portio.trio.wakes.base import Wake, check_run, close_accepted
from portio.trio.wakes.descriptor import DescriptorWake
from portio.trio.wakes.thread import ThreadWake

if TYPE_CHECKING:
    from portio.trio.wakes.base import Host

__all__ = [
    "VARIABLE",
    "DescriptorWake",
    "ThreadWake",
    "Wake",
    "check_run",
    "close_accepted",
    "make_wake",
]

#: A debugging switch: "descriptor" or "thread".
VARIABLE = "PORTIO_TRIO_WAKE"


def make_wake(host: Host, backend: str | None) -> Wake:
    """Makes a port and the wake that fits this system, for the run that calls it."""
    usual = "thread" if sys.platform == "win32" else "descriptor"
    wanted = os.environ.get(VARIABLE) or usual
    if wanted == "thread":
        return ThreadWake(host, backend)
    if wanted == "descriptor":
        return DescriptorWake(host, backend)
    raise ValueError(f"{VARIABLE} must be descriptor or thread, not {wanted!r}")
