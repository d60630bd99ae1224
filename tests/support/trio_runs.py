"""Tests that are trio programs."""

from __future__ import annotations

import functools
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from support.watch import LIMIT


async def until_full(sock: socket.socket) -> None:
    """Return when nothing more fits, also when what was sent has moved on to the peer.

    While it moves there is room again now and then; nobody can see when that is over, but
    that there was none for a while.
    """
    while True:
        with trio.move_on_after(0.2) as scope:
            await trio.lowlevel.wait_writable(sock)
        if scope.cancelled_caught:
            return
        await trio.lowlevel.checkpoint()


def in_trio(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a test of an asynchronous function, with a limit on its time."""

    @functools.wraps(function)
    def test(*args: Any, **kwargs: Any) -> None:
        async def limited() -> None:
            with trio.fail_after(2 * LIMIT):
                await function(*args, **kwargs)

        trio.run(limited)

    return test
