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

The end.  Whoever closes the port, its wake goes down with it: tasks that wait are told,
the instrument is taken away, and trio forgets the descriptor *before* the port gives up
its number, which may be given out again at once.  An error that carrying packets meets,
of which no operation could be told, comes to the same: `Wake.fail` closes the port, so
that nothing is pending any more when the tasks are let go.

Who may.  Everything here is called in trio's thread, and in the run that has made the
port, except for `ThreadWake._serve`.  `check_run` refuses others.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

import trio
from trio.lowlevel import Abort, Task, enable_ki_protection, reschedule, wait_task_rescheduled

import portio
from portio.errors import PortClosedError
from portio.operations import Accept

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio.lowlevel import RaiseCancelT

    from portio.completion import Completion

__all__ = [
    "VARIABLE",
    "DescriptorWake",
    "ThreadWake",
    "Wake",
    "check_run",
    "close_accepted",
    "make_wake",
]

#: Errors that end a port, and that no operation could be told of.
logger = logging.getLogger("portio.trio")

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


def make_wake(host: Host, backend: str | None) -> Wake:
    """Makes a port and the wake that fits this system, for the run that calls it."""
    usual = "thread" if sys.platform == "win32" else "descriptor"
    wanted = os.environ.get(VARIABLE) or usual
    if wanted == "thread":
        return ThreadWake(host, backend)
    if wanted == "descriptor":
        return DescriptorWake(host, backend)
    raise ValueError(f"{VARIABLE} must be descriptor or thread, not {wanted!r}")


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
        """See `Wake`: the loop does not sleep before that batch, and can look what there is."""
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
        self._over = True
        self._host.end()

    def _fail(self, error: BaseException) -> None:
        """Packets cannot be carried any more."""
        self._cause = None if isinstance(error, PortClosedError) else error
        try:
            _report(error)
            self.port.close()
        except BaseException:
            logger.exception("a port that failed cannot be closed")
            self._host.fail(self._cause)
        # The loop may be about to sleep, and must see what was scheduled just now.
        self.token.run_sync_soon(bool)

    def _fetch(self) -> None:
        while True:
            packets = self.port.get_many(MOST, 0)
            self._unsent = True  # the next steps of operations that have not ended
            if packets:
                self._host.deliver(packets)
            if len(packets) < MOST:
                return

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


class ThreadWake(trio.abc.Instrument):
    """A thread waits in the port."""

    #: Always asks `revive`, which refuses other runs: the port itself lets all threads in.
    attended = False
    sleeps = 0

    def __init__(self, host: Host, backend: str | None) -> None:
        self.token = trio.lowlevel.current_trio_token()
        self.port = portio.Port(backend=backend)
        self._host = host
        #: What the thread has taken.  It appends, trio's thread takes away.
        self._arrived: deque[list[Completion[Any]]] = deque()
        self._over = False  # the run has ended
        self._thread = threading.Thread(
            target=self._serve, args=(self.port,), name="portio waiter", daemon=True
        )
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
        while self._arrived:
            close_accepted(self._arrived.popleft())
        if not self._over and is_current(self.token):
            self._host.fail(cause)

    def _fail(self, error: BaseException) -> None:
        """The thread cannot go on: somebody has closed the port, or taking packets fails."""
        cause = None if isinstance(error, PortClosedError) else error
        try:
            _report(error)
            self._carry()  # their operations are done
            self._take_down(cause)
        except BaseException:
            logger.exception("a port that failed cannot be closed")
            self._host.fail(cause)

    def _serve(self, port: portio.Port) -> None:
        """The thread: takes packets until the port is closed."""
        try:
            while True:
                self._arrived.append(port.get_many(MOST))
                # Idempotent: many calls before trio looks are one.
                self.token.run_sync_soon(self._carry, idempotent=True)
        except trio.RunFinishedError:
            pass  # nobody waits any more; the end of the run closes the port
        except BaseException as error:  # noqa: BLE001 (it would end here, and tasks wait for ever)
            with suppress(trio.RunFinishedError):
                self.token.run_sync_soon(self._fail, error)

    def _carry(self) -> None:
        while self._arrived:
            self._host.deliver(self._arrived.popleft())


def close_accepted(packets: Iterable[Completion[Any]]) -> None:
    """Closes the sockets of accepts that nobody will see (contract P7)."""
    for packet in packets:
        if isinstance(packet.operation, Accept) and packet.error is None:
            packet.result().close()


def _report(error: BaseException) -> None:
    if not isinstance(error, PortClosedError):
        logger.error("taking packets has failed; the port is closed", exc_info=error)
