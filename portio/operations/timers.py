"""Time as an operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from portio.keys import CompletionKey
from portio.operations import numbers
from portio.operations.base import Operation, Prepared, no_result, unusable_key
from portio.timeouts import to_nanoseconds

if TYPE_CHECKING:
    from portio.unqueued import UnqueuedOperations

__all__ = ["Timer"]


class Timer(Operation[None]):
    """Completes when `seconds` have passed since its submission, never earlier.

    `key` only comes back with the completion: a key of the same port, a free key,
    or None.  Closing it does not cancel the timer; `cancel` does.

    Raises at submission: ValueError when `seconds` is negative or NaN.
    """

    __slots__ = ("seconds",)

    label = "portio.Timer"
    _brief = True

    #: How long, in seconds.
    seconds: float

    def __init__(self, seconds: float, key: CompletionKey | None = None) -> None:
        self.key = key
        self.seconds = seconds
        self._entry = None

    def _prepare(self, port: UnqueuedOperations, token: int, mode: int) -> Prepared:
        key: Any = self.key
        if key is not None and not (isinstance(key, CompletionKey) and key.serves(port)):
            raise unusable_key(self, port)
        nanoseconds = to_nanoseconds(self.seconds, "seconds")
        entry = self, key, no_result, None, token, port, mode
        request = port._native, numbers.TIMER, mode, 0, token, port._null, 0, nanoseconds
        return entry, request
