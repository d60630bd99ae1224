"""Turns: one task at a time, in the order in which they came."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.lowlevel import ParkingLot

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Turns"]


class Turns:
    """What ``async with`` lets one task into at a time.

    Unlike `trio.Lock` it is no checkpoint where nobody is in the way, because what
    comes after it is one already.

    `begin` is called when a turn has begun, however long the task had to wait for it; what
    it raises ends the turn.  `end` is called before the turn ends.  `take` and `leave` call
    neither.

    Whoever uses it is protected from KeyboardInterrupt (`trio.lowlevel.enable_ki_protection`
    on each public method): one that was raised in here would leave the turn taken for good.
    """

    __slots__ = ("_begin", "_end", "_taken", "_waiting")

    def __init__(
        self,
        begin: Callable[[], object] | None = None,
        end: Callable[[], object] | None = None,
    ) -> None:
        self._begin = begin
        self._end = end
        self._taken = False
        self._waiting = ParkingLot()

    @property
    def taken(self) -> bool:
        """Whether a task has the turn."""
        return self._taken

    async def take(self) -> None:
        """Waits for the turn."""
        if self._taken:
            await self._waiting.park()  # who leaves lets us in, and leaves `_taken` set
        self._taken = True

    def leave(self) -> None:
        """Gives the turn to the next."""
        if not self._waiting.unpark():
            self._taken = False

    async def __aenter__(self) -> None:
        await self.take()
        if self._begin is not None:
            try:
                self._begin()
            except BaseException:
                self.leave()
                raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._end is not None:
                self._end()
        finally:
            self.leave()
