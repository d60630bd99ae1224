"""What a wake is, and what both ways share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

import trio

import portio
from portio.errors import PortClosedError
from portio.operations.accept import AnyAccept

if TYPE_CHECKING:
    from collections.abc import Iterable

    from portio.completion import Completion

__all__ = ["MOST", "Host", "Wake", "check_run", "close_accepted", "is_current", "logger", "report"]

#: Errors that end a port, and that no operation could be told of.
logger = logging.getLogger("portio.trio")

MOST = 256  # packets that are taken in one call


class Host(Protocol):
    """What a wake needs of a `TrioPort`."""

    @property
    def waiting(self) -> bool:
        """Whether a task waits for an operation of the port."""
        ...

    def deliver(self, packets: list[Completion[Any]]) -> None:
        """Hands packets to the tasks that wait for them."""
        ...

    def fail(self, cause: BaseException | None) -> None:
        """The port is closed: tells all who wait.  `cause` is the error that has led to it."""
        ...

    def end(self) -> None:
        """The run is over."""
        ...


class Wake(Protocol):
    """How the completions of `port` reach the run."""

    port: portio.Port
    #: The run that it belongs to.
    token: trio.lowlevel.TrioToken
    #: Whether packets are carried.  Not at the very end of a run, when the finalizers
    #: of asynchronous generators run and there are no system tasks any more.
    attended: bool

    #: How often the loop has slept; 0 where that is of no interest.
    sleeps: int

    #: Whether packets come in numbers, since the loop has slept last, so that tasks do well to
    #: share calls of the system.
    crowded: bool

    def submitted(self, patient: bool, /) -> None:  # noqa: FBT001
        """Operations were started or cancelled, in this batch of tasks.

        `patient`: they are likely to wait for somebody else, and not to be complete at once.
        """
        ...

    def ended(self) -> None:
        """An operation has ended as it was started; the task that calls has the next batch run."""
        ...

    def revive(self) -> bool:
        """Starts again to carry packets by itself; whether that is possible.

        RuntimeError in another run.  Called before a submission, unless `attended`.
        """
        ...

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carries packets until it is cancelled and no task waits any more."""
        ...

    def close(self) -> None:
        """Closes the port and ends whatever carries its packets.

        The host is told, unless the run is over.  May be called again.
        """
        ...


def is_current(token: trio.lowlevel.TrioToken) -> bool:
    """Whether the caller is in the run of `token`."""
    try:
        return trio.lowlevel.current_trio_token() is token
    except RuntimeError:
        return False


def check_run(token: trio.lowlevel.TrioToken) -> None:
    """Raises RuntimeError in another run than that of `token`, and outside of runs."""
    if not is_current(token):
        raise RuntimeError(
            "this port belongs to another trio run; a run uses ports of its own, "
            "for one the port that portio.trio.current_port() gives"
        )


def close_accepted(packets: Iterable[Completion[Any]]) -> None:
    """Closes the sockets of accepts that nobody will see (contract P7)."""
    for packet in packets:
        if isinstance(packet.operation, AnyAccept) and packet.error is None:
            packet.result().close()


def report(error: BaseException) -> None:
    """Logs why taking packets has failed, unless the port was closed."""
    if not isinstance(error, PortClosedError):
        logger.error("taking packets has failed; the port is closed", exc_info=error)
