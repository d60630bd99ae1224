"""Multishot operations: one submission, many completions (contract O16).

What lies between two completions is a *turn*.  The record of a turn that succeeded
says that there is more to come (PORTIO_MORE); then the operation stays pending, and
nothing of it is told until `portio_renew` begins the next turn, which is done here, when
the record has become a completion.  So of one operation there is never more than one
packet: they leave the port in their order, and what arrives meanwhile waits where it
was, with the system, or in a buffer of its pool.

Each turn has a token of its own, the next one of the slot, and an entry of its own
(or, in C, where nobody has seen it, the same one with another token). A record is
therefore claimed like every other, by deleting what stands in the book for its
token, and cannot be taken twice. The engine lets all tokens of the operation mean
it when it is cancelled, since whoever cancels may have read one just before it
changed.

Ctrl-C (packets.py).  From the claim on, `_due` knows that the next turn has to begin.
If a signal handler raises before it has, the next call that looks after rescued packets
begins it.  A thread may do so for another one, which is only early: the engine refuses
the second attempt.  A buffer that is lent becomes the program's in the same step as the claim
is made: no signal handler runs between `del`, and assignments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from portio.completion import DROPPED
from portio.engine import GENERATION, TOKENS, Engine
from portio.pools import Lent

if TYPE_CHECKING:
    from portio.completion import Completion
    from portio.operations.base import Entry

__all__ = ["Turns"]


class Turns(Engine):
    """A port as far as operations go on after a completion."""

    __slots__ = ("_due",)

    def _open_turns(self) -> None:
        #: The turns that have to begin: their tokens, and the tokens before those.
        self._due: dict[int, int] = {}

    def _take_turn(
        self, out: list[Completion[Any]], entry: Entry, completion: Completion[Any]
    ) -> bool:
        """Delivers the completion of a turn, and has the next begin.

        False when somebody else has claimed it.
        """
        operation, _, _, _, token, _, _ = entry
        outcome: Any = completion._outcome
        lent = outcome.value if isinstance(outcome.value, Lent) else None
        following = (token + GENERATION) & TOKENS
        again = operation._next_turn(entry, following)
        pending, due = self._pending, self._due
        try:
            del pending[token]  # the claim
        except KeyError:
            return False
        if lent is not None:
            lent.loan.begun = True
            outcome.value = lent.view
        # In this order: who drops the port's operations finds the entry in both or in none.
        operation._entry = again
        pending[following] = again
        due[following] = token
        out.append(completion)
        self._renew(following, token)
        return True

    def _renew(self, following: int, token: int) -> None:
        """Begins a turn, if it has not begun."""
        refused = self._lib.portio_renew(self._native, token, 0)
        if refused == self._lib.PORTIO_CLOSED:
            self._drop_turn(following)
        self._due.pop(following, None)

    def _drop_turn(self, following: int) -> None:
        """The port was closed before the turn could begin."""
        entry = self._pending.pop(following, None)
        if entry is not None and entry[0] is not None and entry[0]._entry is entry:
            entry[0]._outcome = DROPPED
            entry[0]._entry = None

    def _renew_all(self) -> None:
        """Begins the turns that an exception has kept from it."""
        for following, token in self._due.copy().items():
            self._renew(following, token)
