"""TCP connections and servers, with the functions that trio has for them.

Resolving names, racing connections (Happy Eyeballs) and binding to all addresses is
trio's own work, and stays it: what is connected or listens is taken over afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import enable_ki_protection

from portio.trio.ports import TrioPort, current_port
from portio.trio.sockets import SocketListener, SocketStream, adopt, taken_over

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["open_tcp_listeners", "open_tcp_stream", "serve_tcp"]


@enable_ki_protection
async def open_tcp_stream(
    host: str | bytes,
    port: int,
    *,
    happy_eyeballs_delay: float | None = 0.25,
    local_address: str | None = None,
    on: TrioPort | None = None,
) -> SocketStream:
    """Connects to a host: `trio.open_tcp_stream`, which raises what it says.

    `on` is the port to use; None: that of the run.
    """
    serving = current_port() if on is None else on
    theirs = await trio.open_tcp_stream(
        host, port, happy_eyeballs_delay=happy_eyeballs_delay, local_address=local_address
    )
    return adopt(SocketStream, taken_over(theirs.socket), serving)


@enable_ki_protection
async def open_tcp_listeners(
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    on: TrioPort | None = None,
) -> list[SocketListener]:
    """Listens for connections: `trio.open_tcp_listeners`, which raises what it says.

    `on` is the port to use, also for the connections; None: that of the run.
    """
    serving = current_port() if on is None else on
    theirs = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    ours: list[SocketListener] = []
    try:
        for listener in theirs:
            ours.append(adopt(SocketListener, taken_over(listener.socket), serving))  # noqa: PERF401
    except BaseException:
        for opened in [*ours, *theirs]:
            with trio.CancelScope(shield=True):
                await opened.aclose()
        raise
    return ours


async def serve_tcp(
    handler: Callable[[SocketStream], Awaitable[object]],
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
    on: TrioPort | None = None,
) -> None:
    """Listens, and runs ``handler(stream)`` for every connection: `trio.serve_tcp`.

    With ``nursery.start`` it gives the list of listeners.  `on` is the port to use; None:
    that of the run.  It only returns when it is cancelled.
    """
    listeners = await open_tcp_listeners(port, host=host, backlog=backlog, on=on)
    await trio.serve_listeners(
        handler, listeners, handler_nursery=handler_nursery, task_status=task_status
    )
