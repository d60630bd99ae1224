"""Sockets and pipes: exactly once, stream order, no byte lost or doubled."""

from __future__ import annotations

import errno
import functools
import socket
import time
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, initialize, invariant, multiple, rule

import portio
from support.system import WINDOWS, WINE

from .ledger import CANCELLED, Submission
from .machines import SHAPES, SWITCHES, PortMachine, Shape, walk
from .streams import End, Handle, Stream, is_open

Making = Callable[..., portio.Operation[Any]]


class StreamMachine(PortMachine):
    """Streams of any kind, whose ends all belong to one of two ports."""

    ends: ClassVar[Bundle[End]] = Bundle("ends")
    submitted: ClassVar[Bundle[Submission]] = Bundle("submitted")

    def __init__(self, backend: str, thread_bound: bool) -> None:
        super().__init__(backend, thread_bound)
        self.all_ends: list[End] = []
        self.streams: list[Stream] = []
        self.finish = "cancel"
        self.data = object()

    @initialize(switches=SWITCHES, finish=st.sampled_from(["cancel", "drain", "close"]))
    def begin(self, switches: str, finish: str) -> None:
        """What is pending at the end is cancelled, served, or left to the port's close."""
        self.open_ports(switches)
        self.finish = finish

    # Making and ending streams

    def join(
        self,
        port: portio.Port,
        left: Handle,
        right: Handle,
        kinds: tuple[Making, Making],
        *,
        both_ways: bool,
    ) -> MultipleResults[End]:
        """Two ends, and the streams between them: from right to left, or both ways."""
        down, up = Stream(), Stream() if both_ways else None
        ends = [
            End(handle, port, port.associate(handle, self.data), inbound, outbound, *kinds)
            for handle, inbound, outbound in ((left, down, up), (right, up, down))
        ]
        self.all_ends += ends
        self.streams += [stream for stream in (down, up) if stream]
        return multiple(*ends)

    @rule(end=ends)
    def close_key(self, end: End) -> None:
        """Closing cancels, and closing once more does nothing."""
        end.close()
        assert end.key.closed
        assert not is_open(end.handle)

    @rule(end=ends, which=st.integers(0, 1))
    def reassociate(self, end: End, which: int) -> None:
        """A handle moves to another port, or does not while anything is pending."""
        if end.closed:
            return
        with pytest.raises((ValueError, OSError)):
            self.ports[which].associate(end.handle)
        if WINE:  # which cannot disassociate
            return
        idle = not end.waiting
        try:
            end.port.disassociate(end.key)
        except OSError as error:
            if idle or error.errno != errno.EBUSY:
                raise
            return
        assert end.key.port is None
        end.port = self.ports[which]
        end.key = end.port.associate(end.handle, self.data)

    # Submitting

    def receive(self, end: End, shape: Shape) -> Submission:
        """A receive that is ready to be submitted."""
        assert end.inbound
        buffers = [self.ledger.buffer(size) for size in shape.sizes]
        operation = end.receiving(end.key, shape.argument(buffers))
        submission = Submission(operation, end.port, buffers=buffers)
        submission.order, submission.end = end.inbound.receives, end
        return submission

    def send(self, end: End, shape: Shape, *, mutable: bool) -> Submission:
        """A send that is ready to be submitted."""
        assert end.outbound
        parts = [end.outbound.next(size) for size in shape.sizes]
        buffers = [self.ledger.buffer(0, part) for part in parts] if mutable else []
        operation = end.sending(end.key, shape.argument(buffers or parts))
        data = b"".join(parts)
        submission = Submission(operation, end.port, buffers=buffers, data=data)
        submission.order, submission.end = end.outbound.sends, end
        return submission

    def start(self, end: End, *submissions: Submission, queued: bool) -> MultipleResults[Any]:
        """Submit, unless the end is closed: then nothing may start."""
        submissions[0].queued = queued
        if end.closed:
            with pytest.raises((ValueError, portio.PortClosedError)):
                self.submit(end.port, *submissions)
            assert not any(submission.operation.pending for submission in submissions)
            return multiple()
        self.submit(end.port, *submissions)
        end.submissions += submissions
        for submission in submissions:
            if submission.order is not None:
                submission.order.append(submission)
        return multiple(*submissions)

    @rule(
        target=submitted,
        end=ends.filter(lambda end: end.inbound is not None),
        shapes=st.lists(SHAPES, min_size=1, max_size=3),
        queued=st.booleans(),
    )
    def submit_receives(
        self, end: End, shapes: list[Shape], *, queued: bool
    ) -> MultipleResults[Submission]:
        """One receive or several, in one call."""
        return self.start(end, *(self.receive(end, shape) for shape in shapes), queued=queued)

    @rule(
        target=submitted,
        end=ends.filter(lambda end: end.outbound is not None),
        shapes=st.lists(SHAPES, min_size=1, max_size=3),
        queued=st.booleans(),
        mutable=st.booleans(),
    )
    def submit_sends(
        self, end: End, shapes: list[Shape], *, queued: bool, mutable: bool
    ) -> MultipleResults[Submission]:
        """One send or several, in one call."""
        sends = (self.send(end, shape, mutable=mutable) for shape in shapes)
        return self.start(end, *sends, queued=queued)

    @rule(target=submitted, old=submitted)
    def submit_again(self, old: Submission) -> Submission:
        """A completed operation may be submitted again; a pending one may not.

        Which of them it is depends on chance, but the number of submissions that
        Hypothesis can choose from must not: what is not started gives the old one.
        """
        operation = old.operation
        if operation.pending:
            with pytest.raises((RuntimeError, ValueError)):
                old.port.submit(operation)
            return old
        again = Submission(operation, old.port, old.queued, old.buffers, old.data)
        if isinstance(operation, portio.Timer):
            again.due = time.monotonic() + operation.seconds
        again.order, again.end = old.order, old.end
        if old.end is None:
            self.submit(old.port, again)
            return again
        if old.end.key is not operation.key:  # the handle has moved: this key is dead
            with pytest.raises(ValueError, match=r"handle|closed|another port"):
                old.port.submit(operation)
            return old
        started = self.start(old.end, again, queued=old.queued)
        return next(iter(started.values), old)

    @rule(
        target=submitted,
        which=st.integers(0, 1),
        seconds=st.floats(0, 0.004),
        queued=st.booleans(),
    )
    def submit_timer(self, which: int, seconds: float, *, queued: bool) -> Submission:
        """A timer, which is never early."""
        timer = portio.Timer(seconds)
        submission = Submission(timer, self.ports[which], queued=queued)
        submission.due = time.monotonic() + seconds
        self.submit(self.ports[which], submission)
        return submission

    @rule(
        which=st.integers(0, 1),
        end=st.none() | ends,
        nbytes=st.integers(0, (1 << 32) - 1),
    )
    def post(self, which: int, end: End | None, nbytes: int) -> None:
        """A packet comes back as it was posted, after those posted before."""
        port, key = self.ports[which], None
        if end is not None and not end.closed:
            port, key = end.port, end.key
        self.ledger.post(port, key, nbytes, object())

    @rule(end=ends, other=ends, shape=SHAPES)
    def submit_nonsense(self, end: End, other: End, shape: Shape) -> None:
        """Of several operations with one mistake among them, none is started."""
        if end.closed or other.closed or end.port is other.port:
            return
        good = self.receive(end, shape) if end.inbound else self.send(end, shape, mutable=True)
        bad = self.receive(other, shape) if other.inbound else self.send(other, shape, mutable=True)
        with pytest.raises(ValueError, match="port"):
            end.port.submit(good.operation, bad.operation)
        assert not good.operation.pending
        assert not bad.operation.pending

    # Cancelling and taking

    @rule(submission=submitted)
    def cancel(self, submission: Submission) -> None:
        """A request, at any time; after the completion a no-op."""
        if submission.operation.pending:
            for life in self.submissions:
                if life.operation is submission.operation and not life.done:
                    life.excused = True
        submission.operation.cancel()

    @rule(which=st.integers(0, 1), limit=st.integers(1, 8))
    def take(self, which: int, limit: int) -> None:
        """Take what is there."""
        self.ledger.take(self.ports[which], limit)

    @rule(submission=submitted)
    def wait(self, submission: Submission) -> None:
        """Ask for the completion of an unqueued operation."""
        if submission.done:
            return
        if submission.queued:
            with pytest.raises(RuntimeError):
                submission.operation.wait(0)
        else:
            self.ledger.wait(submission)

    @invariant()
    def streams_are_right(self) -> None:
        """Both sides of each stream agree, as far as they are known."""
        for stream in self.streams:
            stream.check()

    @invariant()
    def buffers_are_pinned(self) -> None:
        """From submit to the completion."""
        self.ledger.check_pinned()

    # The end

    def settle(self) -> None:
        """End what is pending, by the way that was chosen at the beginning."""
        if self.finish == "close":
            return
        if self.finish == "cancel":
            self.cancel_all()
            self.ledger.settle(self.ports)
        self.ledger.settle(self.ports, self.read_on)
        for stream in self.streams:
            stream.check(whole=True)

    def end_stream(self, end: End) -> None:
        """Let the other side see the end of what was sent."""
        raise NotImplementedError

    def read_on(self) -> bool:
        """End every stream and read it to its end; false when all are there."""
        wanted = False
        for end in self.all_ends:
            if end.outbound and not end.closed:
                self.end_stream(end)
        for end in self.all_ends:
            stream = end.inbound
            if stream is None or end.closed:
                continue
            stream.check()
            wanted |= not stream.ended
            if WINDOWS and stream.ended and stream.deaf:  # elsewhere it can still be read
                stream.give_up_sends()
            if WINE and end.outbound and end.outbound.receiver_closed:
                end.outbound.give_up_sends()  # see wine_forgets_who_sends
            over = stream.ended and all(submission.done for submission in stream.sends)
            if not over and all(submission.done for submission in stream.receives):
                self.start(end, self.receive(end, Shape((100_000,), single=True)), queued=True)
        return wanted

    def release(self) -> None:
        """After the port has closed, the handles are still the program's."""
        for end in self.all_ends:
            if not end.closed:
                assert is_open(end.handle)
            end.handle.close()
            end.submissions.clear()
            del end.key


class SocketMachine(StreamMachine):
    """Stream sockets: TCP and Unix pairs."""

    @rule(
        target=StreamMachine.ends,
        which=st.integers(0, 1),
        tcp=st.booleans(),
        small=st.booleans(),
    )
    def connect(self, which: int, *, tcp: bool, small: bool) -> MultipleResults[End]:
        """Make a connection, perhaps one whose buffers fill quickly."""
        if len(self.streams) >= 8:
            return multiple()
        left, right = connected() if tcp else socket.socketpair()
        if small:
            for end in (left, right):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return self.join(
            self.ports[which],
            left,
            right,
            (portio.Recv, portio.Send),
            both_ways=True,
        )

    @rule(
        target=StreamMachine.submitted,
        end=StreamMachine.ends,
        how=st.sampled_from([socket.SHUT_WR, socket.SHUT_WR, socket.SHUT_RD, socket.SHUT_RDWR]),
    )
    def shut_down(self, end: End, how: int) -> MultipleResults[Submission]:
        """Shut a direction down, after the sends before it."""
        submission = Submission(portio.Shutdown(end.key, how), end.port)
        assert end.outbound
        assert end.inbound
        submission.end = end
        if how != socket.SHUT_RD:
            submission.order = end.outbound.sends
        if how != socket.SHUT_WR and not end.closed:
            end.inbound.broken = end.outbound.broken = True
            end.inbound.deaf = True
        return self.start(end, submission, queued=True)

    def end_stream(self, end: End) -> None:
        """Shut the sending direction down, if nobody has."""
        assert end.outbound
        if not any(
            isinstance(submission.operation, portio.Shutdown)
            and not isinstance(submission.error, CANCELLED)
            for submission in end.outbound.sends
        ):
            submission = Submission(portio.Shutdown(end.key), end.port)
            submission.order, submission.end = end.outbound.sends, end
            self.start(end, submission, queued=True)


class PipeMachine(StreamMachine):
    """Pipes of portio's own."""

    @rule(target=StreamMachine.ends, which=st.integers(0, 1))
    def open_pipe(self, which: int) -> MultipleResults[End]:
        """Make a pipe."""
        if len(self.streams) >= 4:
            return multiple()
        reader, writer = portio.pipe()
        return self.join(
            self.ports[which],
            reader,
            writer,
            (portio.Read, portio.Write),
            both_ways=False,
        )

    def end_stream(self, end: End) -> None:
        """A pipe ends when its writer is closed, which must not cut off what is on its way."""
        assert end.outbound
        if not end.waiting:
            end.close()


def connected() -> tuple[socket.socket, socket.socket]:
    """A TCP connection within this process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname())
        right, _ = server.accept()
    return left, right


@pytest.mark.parametrize("machine", [SocketMachine, PipeMachine], ids=["sockets", "pipes"])
def test_streams(machine: type[StreamMachine], backend: str, *, thread_bound: bool) -> None:
    """A random walk over streams of one kind."""
    walk(functools.partial(machine, backend, thread_bound), examples=60, steps=40)
