"""A thread that waits in the port (Windows, where a port has no descriptor).

It fetches records, and carries them to trio by `TrioToken.run_sync_soon`, where they
become completions: until then an operation is pending, so nobody can start it again
before the task that waits for it has been told.  The alternative would be to associate
handles with the port that trio has (`trio.lowlevel.current_iocp`), which saves the
thread; docs/architecture.md says why that was not done.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

import portio
from portio.errors import PortClosedError
from portio.fetching import Fetcher
from portio.trio.wakes.base import check_run, is_current, logger, report

if TYPE_CHECKING:
    from portio.packets import Records
    from portio.trio.wakes.base import Host

__all__ = ["ThreadWake"]


class ThreadWake(trio.abc.Instrument):
    """A thread waits in the port."""

    #: Always asks `revive`, which refuses other runs: the port itself lets all threads in.
    attended = False
    sleeps = 0
    crowded = False

    def __init__(self, host: Host, backend: str | None) -> None:
        self.token = trio.lowlevel.current_trio_token()
        self.port = portio.Port(backend=backend)
        self._host = host
        self._fetcher = Fetcher(self.port)
        #: What the thread has fetched.  It appends, trio's thread takes away.
        self._arrived: deque[Records] = deque()
        self._over = False  # the run has ended
        self._thread = threading.Thread(target=self._serve, name="portio waiter", daemon=True)
        try:
            trio.lowlevel.add_instrument(self)
            self._thread.start()
        except BaseException:
            self._remove()
            self.port.close()
            raise

    def submitted(self, patient: bool, /) -> None:  # noqa: FBT001
        """See `Wake`."""
        # The thread is in the port already.

    def ended(self) -> None:
        """See `Wake`."""

    def revive(self) -> bool:
        """See `Wake`."""
        check_run(self.token)
        return True

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `Wake`."""
        del task_status
        raise AssertionError("the thread watches")

    def close(self) -> None:
        """See `Wake`."""
        self._take_down(None)

    def after_run(self) -> None:
        """The run has ended."""
        self._over = True
        self._host.end()

    def _remove(self) -> None:
        if not self._over:
            with suppress(KeyError, RuntimeError):  # it never was one; or outside of the run
                trio.lowlevel.remove_instrument(self)

    def _take_down(self, cause: BaseException | None) -> None:
        self.port.close()  # which wakes the thread
        self._thread.join()
        self._remove()
        try:
            while self._arrived:
                self._fetcher.take(self._arrived.popleft())  # what is gone with the port
        finally:
            if not self._over and is_current(self.token):
                self._host.fail(cause)

    def _fail(self, error: BaseException) -> None:
        """Packets cannot be carried any more, or somebody has closed the port."""
        cause = None if isinstance(error, PortClosedError) else error
        try:
            report(error)
            self._take_down(cause)
        except BaseException:  # noqa: BLE001 (tasks wait)
            logger.exception("a port that failed cannot be closed")
            self._host.fail(cause)

    def _serve(self) -> None:
        """The thread: fetches packets until the port is closed."""
        try:
            while True:
                self._arrived.append(self._fetcher.fetch())
                # Idempotent: many calls before trio looks are one.
                self.token.run_sync_soon(self._carry, idempotent=True)
        except trio.RunFinishedError:
            pass  # nobody waits any more; the end of the run closes the port
        except BaseException as error:  # noqa: BLE001 (it would end here, and tasks wait for ever)
            with suppress(trio.RunFinishedError):
                self.token.run_sync_soon(self._stop, error)

    def _carry(self) -> None:
        try:
            while self._arrived:
                self._host.deliver(self._fetcher.take(self._arrived.popleft()))
        except BaseException as error:  # noqa: BLE001 (trio would end the program)
            self._fail(error)

    def _stop(self, error: BaseException) -> None:
        """The thread cannot go on."""
        self._carry()  # their operations are done
        self._fail(error)
