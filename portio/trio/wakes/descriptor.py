"""A port with a descriptor, which trio watches (Linux).

The port is bound to trio's thread and submits lazily.  Trio's loop runs a batch of
tasks, waits for the system, and runs the next batch; an `Instrument` stands around that
wait.  Before it, whatever the batch has submitted goes to the kernel in one call, which
also fetches what is complete by then.  After it, when the loop has slept, one call
fetches what has arrived.  So the tasks that an operation wakes run in the very next
batch, and the calls are shared by all tasks of a batch.

- The *watcher* is a system task that waits for the port's descriptor.  It ends the
  loop's sleep; by the time that it runs, the instrument has usually fetched everything.
- The *ticker* is a system task that does nothing.  To schedule it is the documented way
  to say that the next wait must not sleep: most operations are complete as soon as they
  are submitted, and trio computes how long to sleep before it asks the instruments.
- The descriptor is read by the engine when its queue runs empty, in the same call.  A
  completion that comes with the submission thus never shows in trio's own epoll set,
  where it would cost the watcher a round.
"""

from __future__ import annotations

from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import Abort, Task, enable_ki_protection, reschedule, wait_task_rescheduled

import portio
from portio.errors import PortClosedError
from portio.trio.wakes.base import MOST, check_run, is_current, logger, report

if TYPE_CHECKING:
    from trio.lowlevel import RaiseCancelT

    from portio.trio.wakes.base import Host

__all__ = ["DescriptorWake"]

FEW = 2  # packets at a time, up to which each operation had better be a call of its own


class _WatchedPort(portio.Port):
    """A port that takes its wake down when it is closed, whoever closes it."""

    __slots__ = ("wake",)

    wake: DescriptorWake | None

    def __init__(self, backend: str | None) -> None:
        self.wake = None
        super().__init__(backend=backend, thread_bound=True, lazy_submit=True)

    def close(self) -> None:
        """Closes the port: `portio.Port.close`."""
        wake = self.wake
        if wake is None or self._forked or self._owner != get_ident():
            super().close()  # or raises
            return
        if not self._closed:
            wake.before_closing()
        super().close()
        self.wake = None  # from here on; not before, should that have been interrupted
        wake.after_closing()


class DescriptorWake(trio.abc.Instrument):
    """The port is trio's thread's own, and has a descriptor that tells of packets."""

    def __init__(self, host: Host, backend: str | None) -> None:
        self.token = trio.lowlevel.current_trio_token()
        port = _WatchedPort(backend)
        self.port: portio.Port = port
        self._host = host
        self._descriptor = -1
        self._dirty = False  # something was submitted that may be complete already
        self._unsent = False  # something may not have been handed over
        self.sleeps = 0
        self.crowded = False
        self._fetched = False  # packets were fetched since the loop began to sleep
        self._ticker: Task | None = None  # while it can be scheduled
        self.attended = False  # there is a watcher
        self._cause: BaseException | None = None  # why the port is being closed
        self._over = False  # the run has ended
        try:
            self._descriptor = port.fileno()
            trio.lowlevel.add_instrument(self)
            self.revive()
            # At the end of a run no task can be started; see `submitted`.
            with suppress(RuntimeError):
                trio.lowlevel.spawn_system_task(self._tick, name="portio ticker")
        except BaseException:
            self._remove()
            port.close()
            raise
        port.wake = self

    def submitted(self, patient: bool, /) -> None:  # noqa: FBT001
        """See `Wake`: unless all are patient, the loop will not sleep before it has looked."""
        if patient:
            self._unsent = True
            return
        if self._dirty:
            return
        self._dirty = True
        if self._ticker is not None:
            ticker, self._ticker = self._ticker, None
            reschedule(ticker)
        # Without it the loop may sleep, as for patient operations: then they are only
        # handed over, and the descriptor tells of what is complete all the same.

    def ended(self) -> None:
        """See `Wake`: the loop does not sleep before that batch, and can look what there is.

        With little to do that is not worth a call of the system: the watcher tells, too.
        """
        if self.crowded:
            self._dirty = True

    def close(self) -> None:
        """See `Wake`."""
        self.port.close()

    def before_closing(self) -> None:
        """The port is about to give up its descriptor."""
        if not self._over and is_current(self.token):
            trio.lowlevel.notify_closing(self._descriptor)

    def after_closing(self) -> None:
        """The port is closed."""
        if self._over or not is_current(self.token):
            return  # nobody waits any more
        self._remove()
        self.submitted(False)  # lets the ticker end
        self._host.fail(self._cause)

    def _remove(self) -> None:
        with suppress(KeyError):  # it never was one
            trio.lowlevel.remove_instrument(self)

    # ---- around the loop's wait ----

    def before_io_wait(self, timeout: float) -> None:
        """Hands over what was submitted; fetches what is complete, if nobody will sleep."""
        try:
            self._fetched = False
            if timeout > 0:
                # What is complete now has to stay: the loop sleeps, and must be woken.
                self._dirty = self._unsent = self.crowded = False
                self.sleeps += 1
                self.port.flush()
            elif self._dirty:
                self._dirty = self._unsent = False
                self._fetch()
            elif self._unsent:
                self._unsent = False
                self.port.flush()
        except BaseException as error:  # noqa: BLE001 (trio would only log it)
            self._fail(error)

    def after_io_wait(self, timeout: float) -> None:
        """Fetches what has arrived while the loop slept."""
        if timeout > 0 and self.port._pending:
            try:
                self._fetched = True
                self._fetch()
            except BaseException as error:  # noqa: BLE001 (as above)
                self._fail(error)

    def after_run(self) -> None:
        """The run has ended."""
        self._over = True
        self._host.end()

    def _fail(self, error: BaseException) -> None:
        """Packets cannot be carried any more."""
        self._cause = None if isinstance(error, PortClosedError) else error
        try:
            report(error)
            self.port.close()
        except BaseException:  # noqa: BLE001 (tasks wait)
            logger.exception("a port that failed cannot be closed")
            self._host.fail(self._cause)
        # The loop may be about to sleep, and must see what was scheduled just now.
        self.token.run_sync_soon(bool)

    def _fetch(self) -> None:
        count = MOST
        while count == MOST:
            packets = self.port.get_many(MOST, 0)
            self._unsent = True  # the next steps of operations that have not ended
            count = len(packets)
            if packets:
                self.crowded = self.crowded or count > FEW
                self._host.deliver(packets)

    # ---- system tasks ----

    def revive(self) -> bool:
        """See `Wake`."""
        if self.port.closed:
            return True  # there is nothing to carry
        check_run(self.token)
        try:
            trio.lowlevel.spawn_system_task(self.watch, name="portio watcher")
        except RuntimeError:
            return False  # at the end of a run no task can be started
        self.attended = True
        return True

    @enable_ki_protection
    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `Wake`; a system task, as a rule."""
        self.attended = True
        task_status.started()
        try:
            await self._watch_until_cancelled()
        except trio.ClosedResourceError:
            pass  # by `close`
        except Exception as error:  # noqa: BLE001 (trio would end the program)
            self._fail(error)
        finally:
            self.attended = False

    async def _watch_until_cancelled(self) -> None:
        try:
            while not self.port.closed:
                await self._wait_and_fetch()
        except trio.Cancelled:
            # The main task has ended.  Others may be on their way out, and wait for
            # operations to end.
            with trio.CancelScope(shield=True):
                while self._host.waiting and not self.port.closed:
                    await self._wait_and_fetch()
            raise

    async def _wait_and_fetch(self) -> None:
        await trio.lowlevel.wait_readable(self._descriptor)
        if self.port.closed:  # since this task was scheduled
            raise trio.ClosedResourceError
        if not self._fetched:
            self._fetch()

    async def _tick(self) -> None:
        try:
            while not self.port.closed:
                if self._dirty:  # by a task that ran before this one in the batch
                    await trio.lowlevel.checkpoint()
                else:
                    self._ticker = trio.lowlevel.current_task()
                    await wait_task_rescheduled(self._stop_ticking)
        finally:
            self._ticker = None

    def _stop_ticking(self, _: RaiseCancelT) -> Abort:
        self._ticker = None
        return Abort.SUCCEEDED
