"""The door's numbers for operations, read from the extension that is loaded first.

One file describes the door for all engines (native.cdef.txt), so the numbers are
the same in each; before any engine is loaded nobody needs them.  They are kept in
a module because that is where Python finds them fastest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from portio.backends.native import Library

__all__ = ["read"]

ACCEPT = CONNECT = RECV = SEND = RECVFROM = SENDTO = SHUTDOWN = SENDFILE = 0
READ = WRITE = SYNC = TIMER = 0
VECTORED = DATA_ONLY = MULTISHOT = LEND = 0

# Bits for the types of handle, as in CompletionKey._fits.
STREAM_SOCKET = DATAGRAM_SOCKET = FILE = PIPE = 0
SOCKETS = FILES_AND_PIPES = 0

_NUMBERS = (
    *("ACCEPT", "CONNECT", "RECV", "SEND", "RECVFROM", "SENDTO", "SHUTDOWN", "SENDFILE"),
    *("READ", "WRITE", "SYNC", "VECTORED", "DATA_ONLY", "MULTISHOT", "LEND", "TIMER"),
)
_TYPES = ("STREAM_SOCKET", "DATAGRAM_SOCKET", "FILE", "PIPE")


def read(lib: Library) -> None:
    """Reads the numbers from `lib`, if they have not been read."""
    if TIMER:
        return
    known = globals()
    for name in _TYPES:
        known[name] = 1 << getattr(lib, f"PORTIO_{name}")
    known["SOCKETS"] = STREAM_SOCKET | DATAGRAM_SOCKET
    known["FILES_AND_PIPES"] = FILE | PIPE
    for name in _NUMBERS:  # TIMER comes last: who sees it sees all
        known[name] = getattr(lib, f"PORTIO_{name}")
