"""Operations that tell at once when they have ended at once.

A task that sends has nothing to wait for when the system has taken everything, as it
does nearly always.  To the engine these operations are quiet (contract O15): a success
within `Port.submit` gives no packet, and the operation is not pending then.  To the port
they are as others: whatever has to wait ends with a completion, success or not.

What came as a packet has an `Outcome`, and what has ended within `submit` a number.  So
the two can be told apart also where another thread takes the packets, and may have taken
this one's already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from portio import accelerator, operations
from portio.accelerator import TransferFields
from portio.operations.base import QUIET, Transfer

if TYPE_CHECKING:
    from portio.operations.base import Prepared
    from portio.unqueued import UnqueuedOperations

__all__ = ["Prompt", "Send", "Write"]


def _settle(nbytes: int, error: int) -> tuple[int, int]:  # noqa: ARG001
    return nbytes, nbytes


accelerator.adopt(settle=_settle)


class Prompt(TransferFields, Transfer[int]):
    """What they share."""

    __slots__ = ()

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._prompt = True

    def _prepare(self, port: UnqueuedOperations, token: int, mode: int) -> Prepared:
        entry, request = super()._prepare(port, token, mode | QUIET)
        if entry is None:
            return entry, request
        _, key, settle, pin, _, _, _ = entry
        return (self, key, settle or _settle, pin, token, port, mode), request


class Send(Prompt, operations.Send):
    """`portio.Send`, prompt."""

    __slots__ = ()


class Write(Prompt, operations.Write):
    """`portio.Write`, prompt."""

    __slots__ = ()
