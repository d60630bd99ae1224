"""What was submitted, and what has come back: the bookkeeping of every machine here.

The ledger knows each submission from the moment `submit` returned until its
completion left the port.  That is enough to catch a completion that comes
twice, comes for nothing, or never comes, a buffer that is not pinned in
between, and a packet that changes on its way.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import portio
from support.handles import open_handles

CANCELLED = portio.OperationCancelledError


class Buffer(bytearray):
    """A bytearray whose end can be watched through a weak reference."""

    __slots__ = ("__weakref__",)


@dataclass(eq=False)
class Submission:
    """One life of an operation, from a submit to its completion."""

    operation: portio.Operation[Any]
    port: portio.Port
    queued: bool = True
    buffers: list[Buffer] = field(default_factory=list)
    data: bytes = b""  # of a sending operation: what it was to send
    due: float = 0.0  # of a timer: not before this time
    end: Any = None  # what the machine needs to know of the handle
    order: list[Submission] | None = None  # the submissions among which order matters
    excused: bool = False  # a cancel was asked for, or its handle was closed
    done: bool = False
    nbytes: int = 0
    error: OSError | None = None
    received: bytes = b""  # of a receiving operation: what it received

    @property
    def room(self) -> int:
        """The number of bytes that a receiving operation can hold."""
        return sum(map(len, self.buffers))

    @property
    def sent(self) -> bytes:
        """What a sending operation says has been handed over."""
        return self.data[: self.nbytes]

    def __repr__(self) -> str:
        state = f"{self.nbytes} bytes, {self.error!r}" if self.done else "pending"
        return f"<{type(self.operation).__name__} {state}>"


class Ledger:
    """Every submission and every posted packet of one run."""

    _patience = 30.0  # seconds without an end before a run counts as hung

    def __init__(self) -> None:
        self.pending: dict[int, Submission] = {}
        self.posted: dict[int, deque[tuple[portio.CompletionKey | None, int, object]]] = {}
        self._buffers: list[ref[Buffer]] = []

    # The way in

    def buffer(self, size: int, content: bytes = b"") -> Buffer:
        """Make a buffer whose end `forget` will ask for."""
        made = Buffer(content or size)
        self._buffers.append(ref(made))
        return made

    def submit(self, port: portio.Port, *submissions: Submission) -> None:
        """Submit all in one call; on return every one of them is owed a completion."""
        queued = submissions[0].queued
        for submission in submissions:
            submission.port = port
            submission.queued = queued
        port.submit(*(submission.operation for submission in submissions), queued=queued)
        for submission in submissions:
            assert id(submission.operation) not in self.pending
            self.pending[id(submission.operation)] = submission

    def post(
        self, port: portio.Port, key: portio.CompletionKey | None, nbytes: int, payload: object
    ) -> None:
        """Post a packet that has to come back as it is, in the order of posting."""
        port.post(key, nbytes, payload)
        self.posted.setdefault(id(port), deque()).append((key, nbytes, payload))

    # The way back

    def take(self, port: portio.Port, limit: int = 256, timeout: float | None = 0) -> int:
        """Take packets from a port and enter them; gives how many came."""
        completions = port.get_many(limit, timeout)
        assert len(completions) <= limit
        for completion in completions:
            if completion.operation is None:
                self._enter_posted(port, completion)
            else:
                self.enter(port, completion, queued=True)
        return len(completions)

    def wait(self, submission: Submission, timeout: float | None = 0) -> bool:
        """Ask for the completion of an unqueued submission."""
        completion = submission.operation.wait(timeout)
        if completion is None:
            return False
        self.enter(submission.port, completion, queued=False)
        return True

    def enter(
        self, port: portio.Port, completion: portio.Completion[Any], *, queued: bool
    ) -> Submission:
        """Enter the one completion of a submission."""
        operation = completion.operation
        assert operation is not None
        submission = self.pending.pop(id(operation), None)
        assert submission is not None, f"{operation!r} completed, but was not pending"
        assert submission.operation is operation
        assert submission.port is port
        assert submission.queued is queued
        assert completion.key is operation.key
        assert completion.payload is None
        assert completion.last
        assert not operation.pending
        submission.done = True
        submission.nbytes = completion.nbytes
        submission.error = completion.error
        if completion.error is not None:
            assert completion.error.errno is not None
            assert type(operation).__name__ in str(completion.error)
        if submission.due and completion.error is None:
            assert time.monotonic() >= submission.due, "a timer came early"
        if submission.buffers and not submission.data:
            whole = b"".join(submission.buffers)
            submission.received = whole[: completion.nbytes]
            assert 0 <= completion.nbytes <= len(whole)
        for buffer in submission.buffers:  # nothing is pinned any more
            buffer.append(0)
            buffer.pop()
        return submission

    def _enter_posted(self, port: portio.Port, completion: portio.Completion[Any]) -> None:
        queue = self.posted.get(id(port))
        assert queue, "a posted packet came that nobody had posted"
        key, nbytes, payload = queue.popleft()
        assert completion.key is key
        assert completion.nbytes == nbytes
        assert completion.payload is payload
        assert completion.error is None
        assert completion.result() is payload

    # In between

    def check_pinned(self) -> None:
        """No buffer of a pending operation can be resized."""
        for submission in self.pending.values():
            assert submission.operation.pending
            for buffer in submission.buffers:
                if buffer:
                    try:
                        buffer.append(0)
                    except BufferError:
                        continue
                    raise AssertionError(f"the buffer of {submission!r} is not pinned")

    # The end

    @property
    def settled(self) -> bool:
        """Whether nothing is under way."""
        return not self.pending and not any(self.posted.values())

    def settle(
        self, ports: Iterable[portio.Port], more: Callable[[], bool] = lambda: False
    ) -> None:
        """Take from all ports until nothing is pending and `more` has no further wish.

        `more` is asked between two rounds; it may submit, and says whether it
        waits for anything.
        """
        ports = list(ports)
        end = time.monotonic() + Ledger._patience
        while more() or not self.settled:
            for port in ports:
                self.take(port, timeout=0.002 if self.pending else 0)
            for submission in list(self.pending.values()):
                if not submission.queued:
                    self.wait(submission)
            if time.monotonic() > end:
                Ledger._patience = 3.0  # Hypothesis repeats the failure to make it smaller
                raise AssertionError(f"never completed: {list(self.pending.values())!r}")

    def forget(self, submissions: Sequence[Submission]) -> None:
        """Drop the last references, and see that the buffers are gone."""
        for submission in submissions:
            del submission.operation, submission.port
            submission.buffers = []
            submission.end = submission.order = None
            submission.error = None  # its traceback may hold a frame
        self.pending.clear()
        self.posted.clear()
        if any(watch() is not None for watch in self._buffers):
            gc.collect()  # an exception's traceback may hold some
        left = sum(watch() is not None for watch in self._buffers)
        assert not left, f"{left} buffers outlive their operations"


class Descriptors:
    """The descriptors of this process, to see that none is left behind."""

    def __init__(self) -> None:
        self._before = open_handles()

    def check(self) -> None:
        """Only what was open at the beginning may be open now."""
        now = open_handles()
        left = {number: name for number, name in now.items() if number not in self._before}
        assert not left, f"descriptors left open: {left}"
