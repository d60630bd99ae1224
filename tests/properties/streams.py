"""The model of a one-way stream of bytes between two handles."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import portio
from support.system import WINE

from .ledger import CANCELLED, Submission

# Any slice of this says where it was taken from: a lost, a doubled and a moved
# byte all show.
PATTERN = random.Random(20).randbytes(1 << 20)
GONE = {errno.EPIPE, errno.ECONNRESET}


class Handle(Protocol):
    """A socket or the end of a pipe."""

    def fileno(self) -> int: ...
    def close(self) -> None: ...


def is_open(handle: Handle) -> bool:
    """Sockets answer -1 when they are closed, files raise."""
    try:
        return handle.fileno() >= 0
    except ValueError:
        return False


@dataclass(eq=False)
class Stream:
    """One direction: what was sent in order of submission, and what was received."""

    sends: list[Submission] = field(default_factory=list)  # sends and shutdowns
    receives: list[Submission] = field(default_factory=list)
    sender_closed: bool = False
    receiver_closed: bool = False
    broken: bool = False  # a close or a shutdown may have taken bytes away
    ended: bool = False  # a receive saw the end, or failed for good
    deaf: bool = False  # the receiving side was shut down
    _cursor: int = 0

    def give_up_sends(self) -> None:
        """Cancel what is pending: nobody will ever read it."""
        for submission in self.sends:
            if not submission.done:
                submission.excused = True
                submission.operation.cancel()

    def next(self, size: int) -> bytes:
        """The next bytes to send."""
        at = self._cursor % (len(PATTERN) - size)
        self._cursor += size + 1
        return PATTERN[at : at + size]

    def check(self, *, whole: bool = False) -> None:
        """Compare both sides as far as they are known.

        With `whole`, everything that was sent must have been received.
        """
        sent = bytearray()
        known = True
        for submission in self.sends:
            if not submission.done:  # may have sent anything between nothing and all
                if submission.excused:  # and may have ended, with the next behind a part of it
                    known = False
                else:
                    sent += submission.data
                break
            sent += submission.sent
            if (
                WINE  # which does not say how much of it has gone
                and isinstance(submission.operation, portio.Send)
                and isinstance(submission.error, CANCELLED)
            ):
                known = False
                break
        else:
            self._check_sends()
        received = bytearray()
        for submission in self.receives:
            if not submission.done:
                break
            received += submission.received
            self._check_receive(submission)
        common = min(len(sent), len(received))
        assert sent[:common] == received[:common], self._difference(sent, received)
        if not known:
            return
        if all(submission.done for submission in self.sends):
            assert len(received) <= len(sent), "more was received than sent"
        if whole and not self.broken:
            assert len(received) == len(sent), f"{len(sent)} sent, {len(received)} received"

    def _check_sends(self) -> None:
        shut = False
        for submission in self.sends:
            error = submission.error
            assert 0 <= submission.nbytes <= len(submission.data)
            if isinstance(error, CANCELLED):
                assert submission.excused, "cancelled, but nobody had asked for it"
            elif isinstance(submission.operation, portio.Shutdown):
                if error is None:
                    shut = True
                else:
                    assert error.errno == errno.ENOTCONN
                    assert shut or self.broken
            elif error is None:
                assert submission.nbytes == len(submission.data), "a short send without an error"
                assert not shut or not submission.data or self.broken, "sent after the shutdown"
            else:
                assert error.errno in GONE, error
                assert shut or self.receiver_closed or self.broken, error
            if shut and not self.broken:
                assert not submission.nbytes

    def _check_receive(self, submission: Submission) -> None:
        error = submission.error
        if isinstance(error, CANCELLED):
            assert submission.excused, "cancelled, but nobody had asked for it"
            assert submission.nbytes == 0, "a cancelled receive took bytes away"
        elif error is not None:
            assert error.errno in GONE, error
            assert self.broken, error
            self.ended = True
        elif submission.nbytes == 0 and submission.room:
            over = self.sender_closed or self.broken
            assert over or any(
                isinstance(other.operation, portio.Shutdown) for other in self.sends
            ), "an end that nobody has made"
            self.ended = True

    @staticmethod
    def _difference(sent: bytearray, received: bytearray) -> str:
        at = next(index for index, (x, y) in enumerate(zip(sent, received, strict=False)) if x != y)
        return f"the streams differ from byte {at} on (of {len(sent)} sent)"


@dataclass(eq=False)
class End:
    """One handle with its key, and the streams that begin and end in it."""

    handle: Handle
    port: portio.Port
    key: portio.CompletionKey
    inbound: Stream | None
    outbound: Stream | None
    receiving: Callable[..., portio.Operation[Any]]
    sending: Callable[..., portio.Operation[Any]]
    closed: bool = False
    submissions: list[Submission] = field(default_factory=list)

    @property
    def waiting(self) -> list[Submission]:
        """The submissions of this end whose completions have not been taken."""
        return [submission for submission in self.submissions if not submission.done]

    def close(self) -> None:
        """Close the key, and tell the model."""
        for submission in self.waiting:
            submission.excused = True
        self.closed = True
        if self.inbound:
            self.inbound.receiver_closed = self.inbound.broken = True
        if self.outbound:
            self.outbound.sender_closed = True
            # Closing a socket with unread bytes resets the connection, and a
            # reset throws away what is under way in the other direction.
            self.outbound.broken |= self.inbound is not None
        self.key.close()
