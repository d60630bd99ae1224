"""Time as an operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portio.keys import CompletionKey
from portio.operations.base import Operation, Request, unusable_key
from portio.timeouts import to_nanoseconds

if TYPE_CHECKING:
    from portio.port import Port

__all__ = ["Timer"]


class Timer(Operation[None]):
    """Completes when `seconds` have passed since its submission, never earlier.

    `key` only comes back with the completion: a key of the same port, a free key,
    or None.  Closing it does not cancel the timer; `cancel` does.

    Raises at submission: ValueError when `seconds` is negative or NaN.
    """

    __slots__ = ("seconds",)

    label = "portio.Timer"
    _settles = True

    #: How long, in seconds.
    seconds: float

    def __init__(self, seconds: float, key: CompletionKey | None = None) -> None:
        self.key = key
        self.seconds = seconds
        self._token = 0

    def _prepare(self, port: Port) -> Request:
        key: object = self.key
        if key is not None and not (isinstance(key, CompletionKey) and key.serves(port)):
            raise unusable_key(self, port)
        self._pin = None
        return 0, 0, port._null, 0, to_nanoseconds(self.seconds, "seconds")

    def _settle(self, nbytes: int, status: int) -> None:
        return None
