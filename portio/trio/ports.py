"""A port in a trio run: operations that are awaited.

Every run has a port of its own, made when it is first needed and closed with the
run; `TrioPort` makes others.  How packets come out of a port is the business of
wakes/; here they meet the tasks that wait for them.

Cancellation.  A task that waits is never let go before its operation is complete,
because until then the system may use the buffer, and because the operation may
still succeed.  Trio asks for the end of the wait; the operation is asked to end,
and trio is told that the wait goes on (`Abort.FAILED`).  When the completion says
"cancelled", `Cancelled` is raised, by the function that trio gave for that.  When
the operation was faster, its result is returned, and the cancellation is delivered
at the next checkpoint, as always in trio.  Ctrl-C comes the same way.

Who owns what.  `_waiting` maps operations, by identity, to the tasks that wait; the
port keeps the operation alive, so an identity is not used twice.  Only trio's
thread touches it.  What submits, waits or takes is protected from KeyboardInterrupt,
or one could be raised between the submission and the wait, and the completion find
nobody; or between the wait and the result, and an accepted socket be lost.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import trio
from outcome import Error, Value, acapture
from trio.lowlevel import (
    Abort,
    ParkingLot,
    RunVar,
    Task,
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    current_task,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)

from portio.completion import succeeded
from portio.errors import OperationCancelledError, PortClosedError, port_closed
from portio.operations import Connect, Read, Recv, RecvFrom, Send, Timer, Write
from portio.operations.accept import AnyAccept
from portio.trio.memory import Lender
from portio.trio.wakes import check_run, close_accepted, make_wake

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from trio.lowlevel import RaiseCancelT

    from portio.completion import Completion
    from portio.keys import CompletionKey, HandleLike
    from portio.operations.base import Operation
    from portio.port import Port

__all__ = ["TrioPort", "Waiter", "current_port", "port_of", "run"]

#: What waits for somebody else, as a rule.
_PATIENT = (Recv, RecvFrom, AnyAccept, Connect, Timer)

#: What may end within its submission.
_PROMPT = (Read, Send, Write)

T = TypeVar("T")


class TrioPort:
    """A port whose operations are awaited in the trio run that makes it.

    `backend` names the engine; None leaves the choice to PORTIO_BACKEND or to portio.
    It belongs to the run, and to trio's thread: another run that uses it gets a
    RuntimeError.  It is closed with the run; ``async with`` closes it earlier.

    Raises `BackendUnavailableError`, OSError when the system refuses a port, and
    RuntimeError outside of a trio run.
    """

    def __init__(self, *, backend: str | None = None) -> None:
        self._waiting: dict[int, Task] = {}
        self._unclaimed: deque[Completion[Any]] = deque()
        self._takers = ParkingLot()
        self._cause: BaseException | None = None  # what has made the port useless
        #: Memory for the streams of this port.
        self.lender = Lender()
        self._wake = make_wake(self, backend)
        self._port = self._wake.port
        #: Whether sends are put into a ring, which takes those of many tasks in one call.  That
        #: saves more than their packets cost, if there are many.
        self._gathers = self._port.backend == "io_uring"
        _by_port[self._port] = self

    @property
    def sleeps(self) -> int:
        """How often trio's loop has slept, as far as that is known."""
        return self._wake.sleeps

    @property
    def port(self) -> Port:
        """The port itself."""
        return self._port

    @property
    def backend(self) -> str:
        """The name of the engine that it uses."""
        return self._port.backend

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._port.closed

    # ---- operations ----

    @enable_ki_protection
    async def run(self, operation: Operation[T]) -> T:
        """Starts an operation, waits for its completion, and gives the result.

        Raises what `Port.submit` raises, ValueError for a multishot operation (`submit`
        and `get` are for those), and the error that the operation completes with.  When
        the waiting task is cancelled, so is the operation; `Cancelled`
        is raised only if it is then completed as cancelled.  A checkpoint, always.
        """
        # The steps of `complete`, whose coroutine would be a twentieth of the time.
        await checkpoint_if_cancelled()
        if getattr(operation, "multishot", False):
            await _refuse_multishot()
        waiter = Waiter(self, operation)
        if not waiter.may_start():
            return (await self._complete_watching(operation, None)).result()
        try:
            ended = waiter.start(isinstance(operation, _PATIENT))
        except BaseException:
            await checkpoint()
            raise
        if ended:
            result = operation.result()  # now: another task may start it meanwhile
            await cancel_shielded_checkpoint()
            return result
        completion: Completion[T] = await wait_task_rescheduled(waiter.abort)
        if waiter.raise_cancel is not None:
            waiter.end(completion)
        return completion.result()

    @enable_ki_protection
    async def complete(
        self,
        operation: Operation[T],
        cancelled: Callable[[Completion[T]], object] | None = None,
        *,
        patient: bool | None = None,
    ) -> Completion[T]:
        """The same, but gives the completion, which tells of an error and does not raise it.

        Just before `Cancelled` is raised for an operation that was started, `cancelled`
        is called with its completion, which says how many bytes were moved.

        `patient` says whether the operation is likely to wait for somebody else, and not
        to be complete at once; None goes by its class.  It only matters for speed.
        """
        await checkpoint_if_cancelled()
        if getattr(operation, "multishot", False):
            await _refuse_multishot()
        if patient is None:
            patient = isinstance(operation, _PATIENT)
        waiter = Waiter(self, operation)
        completion: Completion[T]
        if not waiter.may_start():
            return await self._complete_watching(operation, cancelled)
        try:
            ended = waiter.start(patient)
        except BaseException:
            await checkpoint()
            raise
        if ended:
            completion = succeeded(operation)  # as in `run`
            await cancel_shielded_checkpoint()
            return completion
        completion = await wait_task_rescheduled(waiter.abort)
        if waiter.raise_cancel is not None:
            waiter.end(completion, cancelled)
        return completion

    async def _complete_watching(
        self, operation: Operation[T], cancelled: Callable[[Completion[T]], object] | None
    ) -> Completion[T]:
        """`complete` at the end of a run, when no system task can watch."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._wake.watch)
            result = await acapture(self.complete, operation, cancelled)
            nursery.cancel_scope.cancel()
        return result.unwrap()

    @enable_ki_protection
    def submit(self, *operations: Operation[Any]) -> None:
        """Starts operations that no task waits for; `get` gives their completions.

        Raises what `Port.submit` raises.
        """
        if not self._wake.attended:
            self._wake.revive()
        self._port.submit(*operations)
        self._wake.submitted(False)

    @enable_ki_protection
    async def get(self) -> Completion[Any]:
        """Waits for the next packet that was posted, or whose operation `submit` has started.

        Raises `PortClosedError`; packets that were not taken before are gone then.
        """
        self.check_run()
        await checkpoint_if_cancelled()
        while not self._unclaimed:
            if self._port.closed:
                await cancel_shielded_checkpoint()
                raise self._closed_error()
            await self._takers.park()
        completion = self._unclaimed.popleft()
        await cancel_shielded_checkpoint()
        return completion

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Completion[Any]:
        try:
            return await self.get()
        except PortClosedError:
            raise StopAsyncIteration from None

    # ---- handles ----

    def associate(self, handle: HandleLike, data: object = None) -> CompletionKey:
        """Makes `handle` a handle of this port, and returns its key: `Port.associate`.

        Raises what that raises, and RuntimeError in another run while the port is open.
        """
        if not self._port.closed:
            self.check_run()
        return self._port.associate(handle, data)

    @enable_ki_protection
    def close_key(self, key: CompletionKey, *, idle: bool = False) -> None:
        """Closes a key of this port, `CompletionKey.close`, and has its operations end.

        `idle` says that there are none, as far as the caller knows.  It only matters for speed.
        """
        key.close()
        self._wake.submitted(idle)

    # ---- the end ----

    @enable_ki_protection
    def close(self) -> None:
        """Closes the port: `Port.close`.  Tasks that wait get `PortClosedError`.

        Raises RuntimeError in another run while it is open.
        """
        if not self._port.closed:
            self.check_run()
        self._wake.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        await checkpoint()

    def __repr__(self) -> str:
        return f"<portio.trio.TrioPort of {self._port!r}>"

    # ---- for the wake ----

    def check_run(self) -> None:
        """Raises RuntimeError unless the caller is in the run that the port belongs to."""
        check_run(self._wake.token)

    @property
    def waiting(self) -> bool:
        """Whether a task waits for an operation of the port."""
        return bool(self._waiting)

    def deliver(self, packets: list[Completion[Any]]) -> None:
        """Hands packets to the tasks that wait for them."""
        waiting = self._waiting
        for packet in packets:
            task = waiting.pop(id(packet.operation), None)
            if task is not None:
                reschedule(task, Value(packet))
            else:
                self._unclaimed.append(packet)
                self._takers.unpark()

    def fail(self, cause: BaseException | None) -> None:
        """The port is closed: tells all who wait.  `cause` is the error that has led to it."""
        _by_port.pop(self._port, None)
        if cause is not None:
            self._cause = cause
        waiting, self._waiting = self._waiting, {}
        for task in waiting.values():
            reschedule(task, Error(self._closed_error()))
        self._drop_unclaimed()
        self._takers.unpark_all()

    def end(self) -> None:
        """The run is over: nobody is left who could wait."""
        _by_port.pop(self._port, None)
        self._drop_unclaimed()
        self._wake.close()

    def _drop_unclaimed(self) -> None:
        while self._unclaimed:
            close_accepted([self._unclaimed.popleft()])

    def _closed_error(self) -> PortClosedError:
        """A new one each time: who raises it adds to it."""
        if self._cause is None:
            return port_closed()
        text = f"the port is closed, because taking packets failed: {self._cause!r}"
        error = PortClosedError(errno.EBADF, text)
        error.__cause__ = self._cause
        return error


async def _refuse_multishot() -> NoReturn:
    await cancel_shielded_checkpoint()
    raise ValueError("a multishot operation has many completions: use submit and get")


class Waiter:
    """One operation and the task that waits for it, in steps that cost little.

    `TrioPort.complete` is the rule.  Streams, which use one operation again and again,
    keep its waiter and take the steps themselves, which saves a coroutine each time:

        await checkpoint_if_cancelled()
        if waiter.may_start():
            waiter.start(patient)
            completion = await wait_task_rescheduled(waiter.abort)
            if waiter.raise_cancel is not None:
                waiter.end(completion)

    all of it protected from KeyboardInterrupt.  It is waited for only if `start` does not say
    that the operation has ended: a read that the system has in memory, a send that it takes
    at once.  To the engine such an operation is quiet (contract O15), so there is no packet;
    whatever has to wait has one, success or not.
    """

    __slots__ = ("_gathers", "_operation", "_port", "_prompt", "_wake", "raise_cancel")

    def __init__(self, port: TrioPort, operation: Operation[Any]) -> None:
        self._port = port
        self._wake = port._wake
        self._operation = operation
        #: Whether it may end as it is started, without a packet; unless it had better not.
        self._prompt = isinstance(operation, _PROMPT)
        self._gathers = port._gathers and isinstance(operation, Send)
        #: Set when trio has asked for the end of the wait.
        self.raise_cancel: RaiseCancelT | None = None

    def may_start(self) -> bool:
        """Whether completions reach the run; if not, `TrioPort.complete` knows a way."""
        return self._wake.attended or self._wake.revive()

    def start(self, patient: bool, /) -> bool:  # noqa: FBT001
        """Submits the operation; raises what `Port.submit` raises.

        True: it has succeeded already.
        """
        operation = self._operation
        port = self._port
        if not self._prompt or (self._gathers and self._wake.crowded):
            port._port.submit(operation)
        elif port._port._start(operation):
            if type(operation._outcome) is not int:
                raise port._closed_error()  # by another thread, meanwhile
            self._wake.ended()
            return True
        self._wake.submitted(patient)
        self.raise_cancel = None
        port._waiting[id(operation)] = current_task()
        return False

    def abort(self, raise_cancel: RaiseCancelT) -> Abort:
        """Trio wants the wait to end."""
        self.raise_cancel = raise_cancel
        self._operation.cancel()
        self._wake.submitted(False)
        return Abort.FAILED

    def end(
        self,
        completion: Completion[T],
        cancelled: Callable[[Completion[T]], object] | None = None,
    ) -> None:
        """Raises `Cancelled`, unless the operation was faster."""
        raise_cancel, self.raise_cancel = self.raise_cancel, None
        if raise_cancel is not None and isinstance(completion.error, OperationCancelledError):
            if cancelled is not None:
                cancelled(completion)
            raise_cancel()


#: The ports that have not been closed, for `run`.
_by_port: dict[Port, TrioPort] = {}

_of_run: RunVar[TrioPort] = RunVar("portio.trio port")


def current_port() -> TrioPort:
    """The port of this trio run, made on first use, and again after it was closed.

    Raises RuntimeError outside of a run, and what `TrioPort` raises.
    """
    try:
        port = _of_run.get()
    except LookupError:
        pass
    else:
        if not port.closed:
            return port
    port = TrioPort()
    _of_run.set(port)
    return port


def port_of(key: CompletionKey | None) -> TrioPort:
    """The port that serves `key`: its own, else that of the run.

    Raises `PortClosedError` when its own is closed.
    """
    if key is not None and key._port is not None:
        found = _by_port.get(key._port)
        if found is not None:
            return found
        if key._port.closed:
            raise port_closed()
    return current_port()


@enable_ki_protection
async def run(operation: Operation[T]) -> T:
    """Starts an operation, waits for its completion, and gives the result.

    On the port of its key; if it has none, on that of the run.  See `TrioPort.run`.
    """
    return await port_of(getattr(operation, "key", None)).run(operation)
