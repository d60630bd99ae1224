"""Packets that one thread fetches, and another takes.

Who carries packets to an event loop waits for them in a thread of its own; but there they
must not become completions yet.  An operation is pending until its packet is taken, and
may be started again from then on: by a task of the loop, before the one that waits for it
has been told.  So the thread fetches records, and the loop's thread takes them.

`fetch` is for one thread at a time, `take` for any.  The port is a shared one, and others may
take from it as well.  Records that were not taken when
the port closes are gone (contract P7); `take` then closes the sockets that were accepted.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from portio.packets import ARRAY, salvaged
from portio.timeouts import FOREVER

if TYPE_CHECKING:
    from portio.packets import Completions, PacketQueue, Records

__all__ = ["Fetcher"]


class Fetcher:
    """Takes the packets of a shared port in two steps."""

    def __init__(self, port: PacketQueue) -> None:
        self._port = port
        self._numbers, self._records = port._make_array()

    def fetch(self) -> Records:
        """Waits until packets are queued, and gives their records; nothing else changes.

        Raises `PortClosedError` when the port is closed, also while it waits, and OSError
        or MemoryError; then nothing is lost.
        """
        port = self._port
        numbers = self._numbers
        c_get = port._c_get
        while True:
            try:
                count = c_get(port._native, self._records, ARRAY, FOREVER)
                if count > 0:
                    records = numbers[: 3 * count]
                    numbers[0] = 0  # what comes next finds nothing of them
                    return records
            except BaseException:
                port._rescue([], salvaged(numbers, ARRAY))
                raise
            if port._heed(count):
                c_get = port._listening_get

    def take(self, records: Records) -> Completions:
        """Turns what `fetch` gave into completions; the operations have ended then.

        After an exception the packets are the next for whoever takes some.
        """
        port = self._port
        out: Completions = []
        try:
            if port._rescued:  # of which a nudge among the records tells
                port._take_leftover(out, sys.maxsize)
            for at in range(0, len(records), 3):
                port._take(out, records[at], records[at + 1], records[at + 2])
        except BaseException:
            port._rescue(out, records)
            raise
        return out
