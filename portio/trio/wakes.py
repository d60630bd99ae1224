"""How the completions of a port reach a trio run: two ways behind one interface.

A *wake* has the port's packets carried to one function in trio's thread, `deliver`,
and sees to it that operations that were started go on.  A `TrioPort` makes one and
knows nothing of how it works.

`DescriptorWake` (Linux).  The port is bound to trio's thread and submits lazily.
Trio's loop runs a batch of tasks, waits for the system, and runs the next batch; an
`Instrument` stands around that wait.  Before it, whatever the batch has submitted goes
to the kernel in one call, which also fetches what is complete by then.  After it, when
the loop has slept, one call fetches what has arrived.  So the tasks that an operation
wakes run in the very next batch, and the calls are shared by all tasks of a batch.

- The *watcher* is a system task that waits for the port's descriptor.  It ends the
  loop's sleep; by the time that it runs, the instrument has usually fetched everything.
- The *ticker* is a system task that does nothing.  To schedule it is the documented way
  to say that the next wait must not sleep: most operations are complete as soon as they
  are submitted, and trio computes how long to sleep before it asks the instruments.
- The descriptor is read by the engine when its queue runs empty, in the same call.  A
  completion that comes with the submission thus never shows in trio's own epoll set,
  where it would cost the watcher a round.

`ThreadWake` (Windows, where a port has no descriptor).  A thread waits in the port, and
carries what it takes to trio by `TrioToken.run_sync_soon`.  The alternative would be to
associate handles with the port that trio has (`trio.lowlevel.current_iocp`), which saves
the thread; docs/architecture.md says why that was not done.  It works on Linux as well,
with a port that is not bound to a thread: PORTIO_TRIO_WAKE=thread asks for it, to test
on one system what the other does.

Who may.  Everything here is called in trio's thread, except for `ThreadWake._serve`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import trio
from trio.lowlevel import Abort, Task, reschedule, wait_task_rescheduled

import portio
from portio.errors import PortClosedError

if TYPE_CHECKING:
    from trio.lowlevel import RaiseCancelT

    from portio.completion import Completion

__all__ = ["VARIABLE", "DescriptorWake", "ThreadWake", "Wake", "make_wake"]

#: A debugging switch: "descriptor" or "thread".
VARIABLE = "PORTIO_TRIO_WAKE"

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

    def fail(self, error: BaseException) -> None:
        """The port is of no use any more: tells all who wait."""
        ...

    def end(self) -> None:
        """The run is over."""
        ...


class Wake(Protocol):
    """How the completions of `port` reach the run."""

    port: portio.Port
    #: Whether packets are carried.  Not at the very end of a run, when the finalizers
    #: of asynchronous generators run and there are no system tasks any more.
    attended: bool

    #: How often the loop has slept; 0 where that is of no interest.
    sleeps: int

    def submitted(self, patient: bool, /) -> None:  # noqa: FBT001
        """Operations were started or cancelled, in this batch of tasks.

        `patient`: they are likely to wait for somebody else, and not to be complete at once.
        """
        ...

    def revive(self) -> bool:
        """Starts again to carry packets by itself; whether that is possible."""
        ...

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carries packets until it is cancelled and no task waits any more."""
        ...

    def close(self) -> None:
        """Closes the port and ends whatever carries its packets."""
        ...


def make_wake(host: Host, backend: str | None) -> Wake:
    """Makes a port and the wake that fits this system, for the run that calls it."""
    usual = "thread" if sys.platform == "win32" else "descriptor"
    wanted = os.environ.get(VARIABLE) or usual
    if wanted == "thread":
        return ThreadWake(host, backend)
    if wanted == "descriptor":
        return DescriptorWake(host, backend)
    raise ValueError(f"{VARIABLE} must be descriptor or thread, not {wanted!r}")


class DescriptorWake(trio.abc.Instrument):
    """The port is trio's thread's own, and has a descriptor that tells of packets."""

    def __init__(self, host: Host, backend: str | None) -> None:
        self.port = portio.Port(backend=backend, thread_bound=True, lazy_submit=True)
        self._host = host
        self._descriptor = -1
        self._dirty = False  # something was submitted that may be complete already
        self._unsent = False  # something was submitted
        self.sleeps = 0
        self._fetched = False  # packets were fetched since the loop began to sleep
        self._ticker: Task | None = None  # while it can be scheduled
        self.attended = False  # there is a watcher
        try:
            self._descriptor = self.port.fileno()
            trio.lowlevel.add_instrument(self)
            self.revive()
            trio.lowlevel.spawn_system_task(self._tick, name="portio ticker")
        except BaseException:
            self.close()
            raise

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

    def close(self) -> None:
        """See `Wake`."""
        with suppress(KeyError, RuntimeError):  # it never was one; or the run is over
            trio.lowlevel.remove_instrument(self)
        if self._descriptor >= 0 and not self.port.closed:
            with suppress(RuntimeError):  # the run is over, and nobody watches
                trio.lowlevel.notify_closing(self._descriptor)
        self.port.close()
        self.submitted(False)  # lets the ticker end

    # ---- around the loop's wait ----

    def before_io_wait(self, timeout: float) -> None:
        """Hands over what was submitted; fetches what is complete, if nobody will sleep."""
        try:
            self._fetched = False
            if timeout > 0:
                # What is complete now has to stay: the loop sleeps, and must be woken.
                self._dirty = self._unsent = False
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
        self._host.end()

    def _fail(self, error: BaseException) -> None:
        """The port cannot be used: somebody has closed it behind our back, say."""
        self._host.fail(error)
        # The loop may be about to sleep, and must see what was scheduled just now.
        trio.lowlevel.current_trio_token().run_sync_soon(bool)

    def _fetch(self) -> None:
        while True:
            packets = self.port.get_many(MOST, 0)
            if packets:
                self._host.deliver(packets)
            if len(packets) < MOST:
                return

    # ---- system tasks ----

    def revive(self) -> bool:
        """See `Wake`."""
        if self.port.closed:
            return True  # there is nothing to carry
        try:
            trio.lowlevel.spawn_system_task(self.watch, name="portio watcher")
        except RuntimeError:
            return False  # at the end of a run no task can be started
        self.attended = True
        return True

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `Wake`; a system task, as a rule."""
        self.attended = True
        task_status.started()
        try:
            await self._watch_until_cancelled()
        except trio.ClosedResourceError:
            pass  # by `close`
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


class ThreadWake(trio.abc.Instrument):
    """A thread waits in the port."""

    def __init__(self, host: Host, backend: str | None) -> None:
        self.port = portio.Port(backend=backend)
        self.attended = True
        self.sleeps = 0
        self._host = host
        self._token = trio.lowlevel.current_trio_token()
        #: What the thread has taken.  It appends, trio's thread takes away.
        self._arrived: deque[list[Completion[Any]]] = deque()
        self._thread = threading.Thread(
            target=self._serve, args=(self.port,), name="portio waiter", daemon=True
        )
        try:
            trio.lowlevel.add_instrument(self)
            self._thread.start()
        except BaseException:
            self.port.close()
            raise

    def submitted(self, patient: bool, /) -> None:  # noqa: FBT001
        """See `Wake`."""
        # The thread is in the port already.

    def revive(self) -> bool:
        """See `Wake`."""
        return True

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `Wake`."""
        del task_status
        raise AssertionError("the thread watches")

    def close(self) -> None:
        """See `Wake`."""
        with suppress(KeyError, RuntimeError):  # as above
            trio.lowlevel.remove_instrument(self)
        self.port.close()  # which wakes the thread
        self._thread.join()
        self._arrived.clear()

    def after_run(self) -> None:
        """The run has ended."""
        self._host.end()

    def _serve(self, port: portio.Port) -> None:
        """The thread: takes packets until the port is closed."""
        while True:
            try:
                packets = port.get_many(MOST)
            except PortClosedError as error:
                with suppress(trio.RunFinishedError):
                    # By `close`, and nobody waits any more; or behind our back.
                    self._token.run_sync_soon(self._host.fail, error)
                return
            self._arrived.append(packets)
            try:
                # Idempotent: many calls before trio looks are one.
                self._token.run_sync_soon(self._carry, idempotent=True)
            except trio.RunFinishedError:
                return  # nobody waits any more; the end of the run closes the port

    def _carry(self) -> None:
        while self._arrived:
            self._host.deliver(self._arrived.popleft())
