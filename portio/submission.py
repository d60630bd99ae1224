"""Submission: how operations start.

An operation is claimed, checked and pinned, entered in `_pending`,
and handed to the engine, in this order.  Up to the last step everything can be
undone, and is, when any check of any operation of the call fails: nothing is
started then and nothing stays pending (contract O1, O2).  The engine refuses
only what cannot start; from its yes on, the operation completes exactly once.

A signal handler that raises is an exception as well.  Before the call of the
engine it undoes the submission like every other; if it runs when that call
returns, the operations are started although `submit` raises, and complete as
usual: `Operation.pending` tells.  There is no call between the last check of a
submission and the engine's, so it is always one of the two.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from portio import accelerator
from portio.engine import GENERATION, TOKENS
from portio.keys import CompletionKey
from portio.operations.base import QUEUED, QUIET, UNQUEUED, Operation
from portio.unqueued import UnqueuedOperations

if TYPE_CHECKING:
    from portio.operations.base import Entry

__all__ = ["Submission"]

# With the GIL the look at an operation's entry and the store to it are one step,
# because no thread switch falls between two instructions that are no call.
_FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()
_claims = threading.Lock()


def renew_lock() -> None:
    """Makes the lock new, in a forked child: a thread that does not exist there may hold it."""
    global _claims  # noqa: PLW0603
    _claims = threading.Lock()


# What the checks of an operation raise; an AttributeError when it is none, or has no key.
_MISUSE = (AttributeError, BufferError, TypeError, ValueError)


class Submission(UnqueuedOperations):
    """A port as far as operations are started and cancelled."""

    __slots__ = ()

    def submit(self, *operations: Operation[Any], queued: bool = True, quiet: bool = False) -> None:
        """Starts operations; each completes exactly once.

        All of them are checked before any is started, and when this raises, none
        is.  Their buffers are pinned until their completions leave the port.  With
        ``queued=False`` the completions are not queued to the port: wait for each
        with `Operation.wait`.  With ``quiet=True`` a success gives no completion:
        the operation is no longer `pending` when the system is done with it, perhaps
        before this returns, and has its `result`; only errors, cancelling included,
        come out of the port.  It is meant for a server's answers.

        What the system thinks of an operation comes with its completion.  This
        raises only what can be seen without asking it: TypeError for what is no
        operation, and for a key, a handle or a buffer of the wrong type;
        BufferError for a buffer that is not contiguous, and for a read-only one
        that is to be filled; ValueError for values out of range, and for a key that
        is closed, free or of another port, and for quiet together with ``queued=False``;
        RuntimeError for an operation that is
        pending (or twice in the call), in another thread than the owner of a
        thread-bound port, and in a forked child; `PortClosedError`; MemoryError.
        """
        mode = QUEUED
        if quiet:
            mode = QUIET
            if not queued:
                raise ValueError("an operation with queued=False cannot be quiet")
        elif not queued:
            mode = UNQUEUED
        if len(operations) != 1:
            self._submit_many(operations, mode)
            return
        self._start_one(operations[0], mode, mode)

    def _start(self, operation: Operation[Any]) -> bool:
        """`submit` of one operation that has no packet if it has ended when this returns.

        Whether it has: a success, whose `_outcome` is its bytes.  Else there is a packet,
        success or not.
        """
        return self._start_one(operation, QUEUED, QUIET)

    def _start_one(self, operation: Operation[Any], mode: int, asked: int) -> bool:
        """Starts an operation; whether it has ended without a packet.

        `mode` says what becomes of its packet, `asked` what the engine hears of it.
        """
        try:
            token = self._free.pop()
        except IndexError:
            token = self._grow()
        try:
            entry, request = operation._prepare(self, token, mode)
        except BaseException as error:
            self._free.append(token)
            if isinstance(error, _MISUSE):
                raise _explained(operation, error) from None
            raise
        if entry is None:
            self._free.append(token)
            self._submit_many((operation,), mode)
            return False
        if asked != mode:
            native, kind, flags, *rest = request
            request = (native, kind, flags | asked, *rest)
        submit_one = self._c_submit_one
        self._pending[token] = entry
        # No call from the claim to the engine's: both happen, or none.
        if _FREE_THREADED:
            self._claim(entry)
        elif operation._entry is None:
            operation._entry = entry
        else:
            self._undo(entry)
            raise _pending_already(operation)
        try:
            result = submit_one(*request)
            if not result:
                return False
            if result > 0:  # a quiet one has ended: what follows is packets.py's order
                try:
                    del self._pending[token]
                except KeyError:  # the port was closed meanwhile, and has dropped it
                    return True
                operation._outcome = request[6]
                operation._entry = None
                self._free.append((token + GENERATION) & TOKENS)
                return True
        except BaseException:
            if request[2] & QUIET:
                self._end_if_skipped(entry, request[6])
            raise
        self._undo(entry)
        raise self._refusal(result)

    def _end_if_skipped(self, entry: Entry, length: int) -> None:
        """A signal, or the end of the port, came between a quiet operation's end and ours."""
        operation, token = entry[0], entry[4]
        if self._lib.portio_skipped(self._native, token) == 1:
            if self._pending.pop(token, None) is entry:
                self._free.append((token + GENERATION) & TOKENS)
            if operation._entry is entry:
                operation._outcome = length
                operation._entry = None

    def _submit_many(self, operations: tuple[Operation[Any], ...], mode: int) -> None:
        """`submit` of any number of operations of any kind, in one call of the engine."""
        count = len(operations)
        if not count:
            return
        entries: list[Entry] = []
        requests = self._ffi.new("portio_request[]", count)
        submit = self._lib.portio_submit
        operation = operations[0]
        started = False
        token = 0  # one that no entry has yet
        try:
            for at, operation in enumerate(operations):
                token = self._new_token()
                rest: tuple[Any, ...] = ()
                entry, request = operation._prepare(self, token, mode)
                if entry is None:
                    (entry, request), rest = operation._prepare_extended(self, token, mode)
                entries.append(entry)
                self._pending[token] = entry
                token = 0
                if _FREE_THREADED:
                    self._claim(entry)
                elif operation._entry is None:
                    operation._entry = entry
                else:
                    raise _pending_already(operation)
                _, kind, flags, handle, name, buffer, length, argument = request
                if type(buffer) is bytes:  # the entry holds it; this is its address
                    buffer = self._from_buffer(self._chars, buffer)
                requests[at] = name, handle, kind, flags, buffer, length, argument, *rest
            started = True
            refused = submit(self._native, requests, count)
        except BaseException as error:
            if not started:
                self._undo(*entries)
                if token and token not in self._pending:
                    self._free.append(token)
            if isinstance(error, _MISUSE):
                raise _explained(operation, error) from None
            raise
        if refused:
            self._undo(*entries)
            raise self._refusal(refused)

    def _told(self, operation: Operation[Any], error: Exception) -> Exception:
        """What to raise for what the handle of an operation has raised."""
        return _explained(operation, error) if isinstance(error, _MISUSE) else error

    def _claim(self, entry: Entry) -> None:
        """Claims the operation of an entry, without the help of the GIL."""
        operation = entry[0]
        try:
            with _claims:
                if operation._entry is not None:
                    raise _pending_already(operation)
                operation._entry = entry
        except BaseException:
            self._undo(entry)
            raise

    def _undo(self, *entries: Entry) -> None:
        """The operations were not started: they are idle again."""
        for entry in entries:
            operation, token = entry[0], entry[4]
            if operation._entry is entry:
                operation._entry = None
            if self._pending.pop(token, None) is entry:  # else it was undone before
                self._free.append(token)

    def flush(self) -> None:
        """Starts what a ``lazy_submit`` port has not started yet; else does nothing.

        Raises `PortClosedError`; RuntimeError in another thread than the owner of a
        thread-bound port and in a forked child.
        """
        refused = self._lib.portio_flush(self._native)
        if refused:
            raise self._refusal(refused)


accelerator.install(Submission, "submit", "_start")


def _pending_already(operation: Operation[Any]) -> RuntimeError:
    return RuntimeError(f"{operation!r} is pending already")


def _explained(operation: Any, error: Exception) -> Exception:
    """The error of a check, in words that name the operation."""
    kind = type(operation).__name__
    if not isinstance(operation, Operation):
        return TypeError(f"an operation is required, not {kind!r}")
    if not hasattr(operation, "_entry"):
        return TypeError(f"{kind}.__init__ did not call super().__init__")
    key: object = getattr(operation, "key", None)
    if isinstance(error, AttributeError) and not isinstance(key, CompletionKey):
        return TypeError(f"{operation.label} needs a CompletionKey, not {type(key).__name__!r}")
    if type(error) in (BufferError, TypeError, ValueError) and operation.label not in str(error):
        return type(error)(f"{operation.label}: {error}")
    return error
