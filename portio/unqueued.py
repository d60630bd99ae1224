"""Operations whose completions are not queued: `Operation.wait`.

The record of such an operation stays in its slot until somebody waits for it.
Any number of threads may; exactly one of them gets the record from the engine,
stores the outcome in the operation and wakes the others, which find it there.

A thread may also come too early, when the operation is claimed, but the engine
does not have it yet.  The engine calls both cases an unknown token; the threads
then wait for news from a thread that submits, or from one that has the record.
`_waits` is the lock around both the question and the news, so none is missed.

A signal handler that raises must not lose a record here either: a thread that has
one and cannot store it leaves it in `_stray`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from portio.completion import completed
from portio.packets import PacketQueue
from portio.timeouts import Deadline

if TYPE_CHECKING:
    from portio.backends.native import CData
    from portio.completion import Completion
    from portio.operations.base import Entry, Operation
    from portio.packets import Completions

__all__ = ["UnqueuedOperations"]

T = TypeVar("T")


class UnqueuedOperations(PacketQueue):
    """A port as far as single operations are waited for, or cancelled."""

    __slots__ = ("_stray", "_waits")

    def _open_waits(self) -> None:
        self._waits = threading.Condition()
        #: Bytes and status of records that no thread has stored, by token.
        self._stray: dict[int, tuple[int, int]] = {}

    def _announce(self) -> None:
        """There is news of an unqueued operation."""
        with self._waits:
            self._waits.notify_all()

    def _cancel(self, token: int) -> None:
        """Operation.cancel."""
        refused = self._lib.portio_cancel(self._native, token)
        if refused and refused != self._lib.PORTIO_CLOSED:
            raise self._refusal(refused, "cancel")

    def _await(
        self, operation: Operation[T], entry: Entry, nanoseconds: int
    ) -> Completion[T] | None:
        """Operation.wait, for an operation that was pending a moment ago.

        Exactly one thread gets the record from the engine; it stores the outcome
        in the operation and wakes the others through `_waits`.
        """
        deadline = Deadline(nanoseconds)
        lib = self._lib
        token = entry[4]
        while operation._entry is entry:
            record = self._ffi.new("portio_completion *")
            try:
                code = lib.portio_wait(self._native, token, record, nanoseconds)
                if code == 1:
                    return self._store(operation, token, record.nbytes, record.status)
            except BaseException:
                self._leave_to_others(token, record)
                raise
            if code == 0:
                return None
            if code == lib.PORTIO_INVALID:
                # Not started yet, or another thread has it: either tells us.
                if not self._wait_for_others(operation, entry, deadline):
                    return None
            elif code != lib.PORTIO_INTERRUPTED:
                raise self._refusal(code)
            nanoseconds = deadline.left()
        return completed(operation)

    def _store(
        self, operation: Operation[T], token: int, nbytes: int, status: int
    ) -> Completion[T]:
        out: Completions = []
        with self._waits:
            self._take(out, token, nbytes, status)
            self._waits.notify_all()
        return out[0] if out else completed(operation)

    def _leave_to_others(self, token: int, record: CData) -> None:
        """An exception ended a wait: what it had is for the next."""
        with self._waits:
            if record.token == token and token in self._pending:
                self._stray[token] = (record.nbytes, record.status)
            self._waits.notify_all()

    def _wait_for_others(self, operation: Operation[T], entry: Entry, deadline: Deadline) -> bool:
        """Waits for news of an operation that the engine does not have; False: time-out."""
        token = entry[4]
        with self._waits:
            if operation._entry is not entry:
                return True
            if token in self._stray:
                self._store(operation, token, *self._stray.pop(token))
                return True
            record = self._ffi.new("portio_completion *")
            code = self._lib.portio_wait(self._native, token, record, 0)
            if code == 1:
                self._store(operation, token, record.nbytes, record.status)
            if code != self._lib.PORTIO_INVALID:
                return True
            left = deadline.left()
            return self._waits.wait(None if left < 0 else left / 1e9) or deadline.left() > 0
