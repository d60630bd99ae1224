"""Operations whose completions are not queued: `Operation.wait`.

The record of such an operation stays in its slot until somebody waits for it.
Any number of threads may; exactly one of them gets the record from the engine and
stores the outcome in the operation, where the others find it.

To all threads but that one the engine says that it does not know the token.  It
says so too when a thread comes too early: the operation is claimed, and another
thread is about to hand it to the engine.  In both cases that other thread is
between two steps of Python, or in a call that does not wait, and needs nothing
but the processor and the GIL to go on.  So this is waited out by giving both
away, again and again; a lock or a condition could be left locked, or its news
undelivered, by a signal handler that raises (packets.py).

A thread that has a record and cannot store it, because such a handler interrupts
it, leaves the record in `_stray`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from portio.completion import completed
from portio.listening import listen
from portio.packets import PacketQueue
from portio.timeouts import Deadline

if TYPE_CHECKING:
    from portio.backends.native import CData
    from portio.completion import Completion
    from portio.operations.base import Entry, Operation
    from portio.packets import Completions

__all__ = ["UnqueuedOperations"]

T = TypeVar("T")

LONGEST_PAUSE = 0.001


class UnqueuedOperations(PacketQueue):
    """A port as far as single operations are waited for, or cancelled."""

    __slots__ = ("_stray",)

    def _open_unqueued(self) -> None:
        #: Bytes and status of records that no thread has stored, by token.
        self._stray: dict[int, tuple[int, int]] = {}

    def _cancel(self, token: int) -> None:
        """Operation.cancel."""
        refused = self._lib.portio_cancel(self._native, token)
        if refused and refused != self._lib.PORTIO_CLOSED:
            raise self._refusal(refused, "cancel")

    def _await(
        self, operation: Operation[T], entry: Entry, nanoseconds: int
    ) -> Completion[T] | None:
        """Operation.wait, for an operation that was pending a moment ago."""
        deadline = Deadline(nanoseconds)
        lib = self._lib
        token = entry[4]
        pause = 0.0
        while operation._entry is entry:
            if token in self._stray:
                self._store_stray(token)
                continue
            record = self._ffi.new("portio_completion *")
            try:
                code = lib.portio_wait(self._native, token, record, nanoseconds)
                if code == lib.PORTIO_WOULD_SLEEP:
                    code = listen(self, token, record, 1, deadline.left())
                if code == 1:
                    # The completion itself, while we hold it; see `completed`.
                    kept = self._store(token, record.nbytes, record.status)  # noqa: F841
                    return completed(operation)
            except BaseException:
                self._leave_to_others(token, record)
                raise
            if code == 0:
                return None
            if code == lib.PORTIO_INVALID:
                time.sleep(pause)
                pause = min(2 * pause + 1e-6, LONGEST_PAUSE)
            elif code != lib.PORTIO_INTERRUPTED:
                raise self._refusal(code)
            nanoseconds = deadline.left()
        return completed(operation)

    def _store(self, token: int, nbytes: int, status: int) -> Completions:
        """Stores the outcome in the operation, unless another thread has done it."""
        out: Completions = []
        self._take(out, token, nbytes, status)
        return out

    def _store_stray(self, token: int) -> None:
        with self._rescue_lock:  # two who settle it might both have what comes of it
            record = self._stray.get(token)
            if record is not None:
                self._store(token, *record)
                self._stray.pop(token, None)

    def _leave_to_others(self, token: int, record: CData) -> None:
        """An exception ended a wait: what it had is for the next."""
        if record.token != token:
            return
        if token in self._pending:
            self._stray[token] = record.nbytes, record.status
        else:
            self._close_dropped(token, record.nbytes, record.status)

    def _drop_packets(self) -> None:
        super()._drop_packets()
        while self._stray:
            token, record = self._stray.popitem()
            self._close_dropped(token, *record)
