"""Time as an operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from portio.keys import CompletionKey
from portio.operations import numbers
from portio.operations.base import Operation, Request, no_result, unusable_key
from portio.timeouts import to_nanoseconds

if TYPE_CHECKING:
    from portio.engine import Engine

__all__ = ["Timer"]


class Timer(Operation[None]):
    """Completes when `seconds` have passed since its submission, never earlier.

    `key` only comes back with the completion: a key of the same port, a free key,
    or None.  Closing it does not cancel the timer; `cancel` does.

    Raises at submission: ValueError when `seconds` is negative or NaN.
    """

    __slots__ = ("seconds",)

    label = "portio.Timer"

    #: How long, in seconds.
    seconds: float

    def __init__(self, seconds: float, key: CompletionKey | None = None) -> None:
        self.key = key
        self.seconds = seconds
        self._entry = None

    def _prepare(self, port: Engine) -> Request:
        key: Any = self.key
        if key is not None and not (isinstance(key, CompletionKey) and key.serves(port)):
            raise unusable_key(self, port)
        nanoseconds = to_nanoseconds(self.seconds, "seconds")
        return numbers.TIMER, 0, 0, port._null, 0, nanoseconds, key, None, no_result
