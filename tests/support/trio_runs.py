"""Tests that are trio programs."""

from __future__ import annotations

import functools
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from support.net import fill
from support.watch import LIMIT


async def until_full(sock: socket.socket) -> None:
    """Return when whoever sends there waits for the reader.

    While what was sent moves on to the peer there is room again now and then; nobody can
    see when that is over, but that there was none for a while.
    """
    while await has_room(sock):
        await trio.lowlevel.checkpoint()


async def clog(sock: socket.socket) -> None:
    """Send until nothing more goes, also when what was sent has moved on to the peer."""
    fill(sock)
    while await has_room(sock):
        fill(sock)


async def has_room(sock: socket.socket) -> bool:
    with trio.move_on_after(0.2):
        await trio.lowlevel.wait_writable(sock)
        return True
    return False


def in_trio(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a test of an asynchronous function, with a limit on its time."""

    @functools.wraps(function)
    def test(*args: Any, **kwargs: Any) -> None:
        async def limited() -> None:
            with trio.fail_after(2 * LIMIT):
                await function(*args, **kwargs)

        trio.run(limited)

    return test
