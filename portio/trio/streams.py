"""What sockets and pipes share: one direction, or two, of a stream of bytes.

A stream owns its handle, through the handle's key.  One operation at a time is pending
in each direction; a second task gets `trio.BusyResourceError`, as with trio's own
streams.  The operation and trio's rules meet in `TrioPort.complete`; here completions
become what `trio.abc` asks for:

- "cancelled" although nobody in trio has cancelled: the handle was closed under the
  operation, by another task, so `trio.ClosedResourceError`;
- the same when the handle's own object was closed, which the port refuses, and when the
  port is closed;
- every other error: `trio.BrokenResourceError`, with the system's error as its cause.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import trio
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    enable_ki_protection,
    wait_task_rescheduled,
)

from portio.errors import OperationCancelledError, PortClosedError
from portio.trio.memory import SIZE
from portio.trio.ports import TrioPort, Waiter, current_port

if TYPE_CHECKING:
    from portio.buffers import Buffers
    from portio.completion import Completion
    from portio.keys import HandleLike
    from portio.operations import Operation, Read, Recv, Send, Write

__all__ = ["Receiving", "Resource", "Sending"]

_T = TypeVar("_T")

_CLOSED = {errno.EBADF, getattr(errno, "ENOTSOCK", errno.EBADF)}


class Resource(trio.abc.AsyncResource):
    """A handle that a task can close while others wait for it."""

    #: Whether trio can wait for the handle besides.
    _watchable = True
    # Whether a task sends, or receives.
    _sending = _receiving = False

    def __init__(self, handle: HandleLike, on: TrioPort | None) -> None:
        self._port = current_port() if on is None else on
        self._key = self._port.associate(handle)
        self._closed = False

    @enable_ki_protection
    def close(self) -> None:
        """Closes it at once; tasks that wait get `trio.ClosedResourceError`.

        Raises RuntimeError in another run, or thread, than that of its port, while the
        port is open; nothing is closed then.
        """
        if self._closed:
            return
        port = self._port
        is_open = not port.closed
        if is_open:
            port.check_run()
        self._closed = True
        key = self._key
        try:
            if self._watchable and is_open and key.means(key._descriptor):
                trio.lowlevel.notify_closing(key._descriptor)
        finally:
            port.close_key(key, idle=not self._sending and not self._receiving)

    @enable_ki_protection
    async def aclose(self) -> None:
        """Closes it.  A checkpoint; it is closed also if that is cancelled."""
        self.close()
        await checkpoint()

    async def _refuse(self, reason: str = "") -> NoReturn:
        """Raises what a closed stream raises; a checkpoint."""
        await checkpoint()
        raise trio.ClosedResourceError(reason or f"this {type(self).__name__} was already closed")

    def _is_gone(self) -> bool:
        """Whether the handle's own object was closed; its number may be another's by now."""
        return not self._key.means(self._key._descriptor)

    async def _refused(self, error: PortClosedError | ValueError) -> NoReturn:
        """Raises what it means that the port has refused, or given up, an operation.

        A checkpoint.
        """
        await checkpoint()
        if isinstance(error, PortClosedError):
            raise self._closed_error() from error.__cause__
        if self._is_gone():
            raise self._closed_error() from None
        raise error

    def _closed_error(self) -> trio.ClosedResourceError:
        return trio.ClosedResourceError(f"somebody has closed this {type(self).__name__}")

    def _failure(self, done: Completion[Any]) -> Exception:
        """What a completion with an error means to who uses the stream."""
        error = done.error
        assert error is not None
        if isinstance(error, OperationCancelledError) or error.errno in _CLOSED:
            return self._closed_error()
        broken = trio.BrokenResourceError(f"{type(self).__name__}: {error}")
        broken.__cause__ = error
        return broken


class Sending(Resource, trio.abc.SendStream):
    """The sending direction."""

    _send_type: type[Send | Write]
    _eof_sent = False

    def __init__(self, handle: HandleLike, on: TrioPort | None) -> None:
        super().__init__(handle, on)
        self._sending = False
        self._send = self._send_type(self._key, b"")
        self._send_waiter = Waiter(self._port, self._send)

    @enable_ki_protection
    async def send_all(self, data: Buffers) -> None:
        """Sends everything, and returns when the system has it.

        A sequence of buffers is sent as if it was one.  The memory must not be changed
        until then.  If it is cancelled, nobody knows how much was sent.

        Raises `trio.BusyResourceError`, `trio.ClosedResourceError`,
        `trio.BrokenResourceError`.
        """
        if self._sending or self._closed or self._eof_sent:
            await self._refuse_sending()
        self._sending = True
        send, waiter = self._send, self._send_waiter
        try:
            if not len(data):  # type: ignore[arg-type]
                await checkpoint()
                return
            await checkpoint_if_cancelled()
            send.buffer = data
            if waiter.may_start():
                if waiter.start(False):
                    await cancel_shielded_checkpoint()
                    return
                done: Completion[int] = await wait_task_rescheduled(waiter.abort)
                if waiter.raise_cancel is not None:
                    waiter.end(done)
            else:
                done = await self._port.complete(self._send_type(self._key, data))
        except (PortClosedError, ValueError) as error:
            await self._refused(error)
        finally:
            self._sending = False
            send.buffer = b""
        if done._outcome is not None and done.error is not None:
            raise self._failure(done)

    async def wait_send_all_might_not_block(self) -> None:
        """Waits until `send_all` could do something at once, as far as the system tells.

        Raises what `send_all` raises.
        """
        await self._begin_sending()
        try:
            if self._watchable:
                await trio.lowlevel.wait_writable(self._key._descriptor)
            else:
                await checkpoint()
        finally:
            self._sending = False

    async def _begin_sending(self) -> None:
        """The first task may, while the stream is open; not a checkpoint if it may."""
        if self._sending or self._closed or self._eof_sent:
            await self._refuse_sending()
        if self._is_gone():
            await self._refuse()
        self._sending = True

    async def _send_one(self, operation: Operation[_T]) -> Completion[_T]:
        """Carries out an operation of this direction in its turn: one at a time.

        Raises what `send_all` raises of a stream that is busy, closed or ended.
        """
        await self._begin_sending()
        try:
            return await self._port.complete(operation)
        except (PortClosedError, ValueError) as error:
            await self._refused(error)
        finally:
            self._sending = False

    async def _refuse_sending(self) -> NoReturn:
        if self._sending:
            raise trio.BusyResourceError(
                f"another task is currently sending data on this {type(self).__name__}"
            )
        await self._refuse("" if self._closed else "can't send data after sending EOF")


class Receiving(Resource, trio.abc.ReceiveStream):
    """The receiving direction."""

    def __init__(self, handle: HandleLike, on: TrioPort | None) -> None:
        super().__init__(handle, on)
        self._receiving = False
        self._patient = True  # nothing is there yet, as a rule
        self._wake = self._port._wake
        self._receive = self._make_receive()
        self._receive_waiter = Waiter(self._port, self._receive)

    def _make_receive(self) -> Recv | Read:
        """The operation that receives, used again and again."""
        raise NotImplementedError

    @enable_ki_protection
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Waits for data, and gives what there is, at most `max_bytes`; b"" at the end.

        If it is cancelled, nothing was taken from the stream.

        Raises `trio.BusyResourceError`, `trio.ClosedResourceError`,
        `trio.BrokenResourceError`; TypeError and ValueError for a bad `max_bytes`.
        """
        if max_bytes is None:
            max_bytes = SIZE
        elif not isinstance(max_bytes, int):
            raise TypeError(f"max_bytes must be an int, not {type(max_bytes).__name__!r}")
        elif max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        if self._receiving:
            raise trio.BusyResourceError(
                f"another task is currently receiving data on this {type(self).__name__}"
            )
        if self._closed:
            await self._refuse()
        await checkpoint_if_cancelled()
        receive, waiter = self._receive, self._receive_waiter
        lent = memoryview(bytearray(max_bytes)) if max_bytes > SIZE else self._port.lender.lend()
        receive.buffer = lent[:max_bytes] if max_bytes < SIZE else lent
        self._receiving = True
        try:
            if waiter.may_start():
                wake = self._wake
                sleeps = wake.sleeps
                if waiter.start(self._patient):
                    data = lent[: receive.result()].tobytes()
                    await cancel_shielded_checkpoint()
                    return data
                done: Completion[int] = await wait_task_rescheduled(waiter.abort)
                self._patient = wake.sleeps != sleeps  # the next one will be like this one
                if waiter.raise_cancel is not None:
                    waiter.end(done)
            else:
                done = await self._port.complete(receive)
            if done._outcome is None:
                return lent[: done.nbytes].tobytes()
        except (PortClosedError, ValueError) as error:
            await self._refused(error)
        finally:
            self._receiving = False
            receive.buffer = b""
            # Pending still: only if trio itself has failed.  The system may write into it.
            if max_bytes <= SIZE and receive._entry is None:
                self._port.lender.take_back(lent)
        if done.error is not None:
            raise self._failure(done)
        return bytes(lent[: done.nbytes])
