"""Packets that did not reach their caller, because an exception came between (contract P8).

They are completions, or records of the engine that nobody has turned into any.  The next call
that takes packets delivers them first; other threads, and who watches `fileno`, learn of them
by a *nudge*, a posted packet that is never delivered.  packets.py has the rules of who calls
this when.
"""

from __future__ import annotations

import threading
from array import array
from typing import TYPE_CHECKING, Any, TypeAlias

from portio.engine import NUDGE
from portio.turns import Turns

if TYPE_CHECKING:
    from portio.completion import Completion

__all__ = ["NOTHING", "Completions", "Records", "Rescue"]

Completions: TypeAlias = "list[Completion[Any]]"
Records: TypeAlias = "array[int]"  # three numbers each

NOTHING: Records = array("q")


class Rescue(Turns):
    """A port as far as it keeps what an exception would have lost."""

    __slots__ = ("_rescue_lock", "_wakes_others")

    def _open_rescue(self) -> None:
        #: Pairs of completions and of records that did not reach a caller.
        self._rescued: list[tuple[Completions, Records]] = []
        self._rescue_lock = threading.RLock()
        self._wakes_others = not self._owner  # rescued packets need a nudge
        self._open_turns()

    def _take(self, out: Completions, token: int, nbytes: int, status: int) -> None:
        """Turns a record into a completion (packets.py)."""
        raise NotImplementedError

    def _rescue(self, done: Completions, records: Records) -> None:
        """Keeps what an exception would have lost; `done` is empty afterwards.

        Whatever the caller has delivered or another thread has claimed by then is
        passed over when the records are looked at again.
        """
        if not done and not records and not self._due:
            return
        item = (done[:], records[:])
        self._rescued[0:0] = (item,)
        del done[:]
        self._tell_of_rescued(len(item[0]) + len(records) // 3)

    def _tell_of_rescued(self, count: int) -> None:
        """Lets others look for packets that were rescued, or who watches `fileno`."""
        if self._wakes_others:
            for _ in range(count):
                self._nudge()

    def _take_rescued(self, out: Completions, limit: int) -> None:
        with self._rescue_lock:
            if self._due:
                self._renew_all()
            while True:  # with a condition, its jump back may lie outside of the `with`
                if len(out) >= limit or not self._rescued:
                    return
                done, records = self._rescued[0]
                if done:
                    out += (done[0],)
                    del done[0]
                elif records:
                    packet = records[:3]
                    del records[:3]
                    try:
                        self._take(out, packet[0], packet[1], packet[2])
                    except BaseException:
                        records[:0] = packet
                        raise
                else:
                    del self._rescued[0]

    def _nudge(self) -> None:
        """Lets one waiting thread look for rescued packets."""
        try:
            token = self._new_token()
            self._pending[token] = NUDGE
            if self._c_post(self._native, token) != 0:
                self._withdraw(token)
        except (OSError, MemoryError, RuntimeError):
            pass  # the next call finds them without it
