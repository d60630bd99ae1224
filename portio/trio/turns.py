"""Turns: one task at a time, in the order in which they came."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.lowlevel import ParkingLot

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Turns"]


class Turns:
    """What ``async with`` lets one task into at a time.

    Unlike `trio.Lock` it is no checkpoint where nobody is in the way, because what
    comes after it is one already.
    """

    __slots__ = ("_taken", "_waiting")

    def __init__(self) -> None:
        self._taken = False
        self._waiting = ParkingLot()

    async def __aenter__(self) -> None:
        if self._taken:
            await self._waiting.park()  # who leaves lets us in, and leaves `_taken` set
        self._taken = True

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._waiting.unpark():
            self._taken = False
