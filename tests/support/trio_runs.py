"""Tests that are trio programs."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from support.watch import LIMIT


def in_trio(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a test of an asynchronous function, with a limit on its time."""

    @functools.wraps(function)
    def test(*args: Any, **kwargs: Any) -> None:
        async def limited() -> None:
            with trio.fail_after(2 * LIMIT):
                await function(*args, **kwargs)

        trio.run(limited)

    return test
