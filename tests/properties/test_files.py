"""Files: what is read is what was written, wherever and in whatever order."""

from __future__ import annotations

import functools
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, rule

import portio
from support.handles import is_open
from support.system import WINDOWS

from .ledger import CANCELLED, Submission
from .machines import SHAPES, SWITCHES, PortMachine, Shape, walk
from .streams import PATTERN

OFFSETS = st.one_of(st.integers(0, 200), st.sampled_from([4095, 4096, 100_000, 300_000]))
TO_THE_END = 1 << 62


@dataclass(eq=False)
class Region:
    """The part of the file that a pending operation is about."""

    start: int
    end: int
    writes: bool


class FileMachine(PortMachine):
    """One file, open twice, on two ports; its content is also in a bytearray.

    Operations under way at the same time never touch the same bytes when one of
    them writes, for then nobody could say what is right.
    """

    submitted: ClassVar[Bundle[Submission]] = Bundle("submitted")

    def __init__(self, backend: str, thread_bound: bool) -> None:
        super().__init__(backend, thread_bound)
        self.folder = Path(tempfile.mkdtemp())
        self.files = [portio.open(self.folder / "file", mode) for mode in ("w+", "r+")]
        self.source, self.sink = socket.socketpair()
        self.source.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.sink.setblocking(False)
        self.sent: list[Submission] = []
        self.arrived = bytearray()
        self.keys: list[portio.CompletionKey] = []
        self.base = 0
        self.model = bytearray()  # the file from `base` on
        self.size = 0
        self.regions: dict[Submission, Region] = {}
        self.finish = ""

    @initialize(
        switches=SWITCHES,
        base=st.sampled_from([0, 5 << 30]),
        finish=st.sampled_from(["cancel", "wait", "close"]),
    )
    def begin(self, switches: str, base: int, finish: str) -> None:
        """Work below 4 GiB or beyond; end by a cancel, by waiting, or by the port's close."""
        self.open_ports(switches)
        self.keys = [
            port.associate(file) for port, file in zip(self.ports, self.files, strict=True)
        ]
        self.out = self.ports[0].associate(self.source)
        self.base, self.finish = base, finish

    # The model

    def claim(self, start: int, end: int, *, writes: bool) -> Region:
        """Wait until nothing under way disturbs this part of the file."""
        length = len(self.model)
        region = Region(start, end, writes)
        if not writes and end > length:
            region.end = TO_THE_END  # how much there is to read depends on later writes
        for other in self.regions.values():
            if not writes and not other.writes:
                continue
            # A write beyond the end also makes the bytes before it.
            first = max(region.start, other.start)
            if region.writes != other.writes:
                first = min(first, length) if max(region.end, other.end) > length else first
            if first < min(region.end, other.end):
                self.finish_all()
                return self.claim(start, end, writes=writes)
        return region

    def expected(self, submission: Submission) -> bytes:
        """What a read finds, or a SendFile sends."""
        operation = submission.operation
        assert isinstance(operation, portio.Read | portio.SendFile)
        start = operation.offset - self.base
        if isinstance(operation, portio.Read):
            return bytes(self.model[start : start + submission.room])
        count = TO_THE_END if operation.count is None else operation.count
        return bytes(self.model[start : start + count])

    def check_completed(self) -> None:
        """Compare what has completed since the last time, and enter it in the model."""
        for submission in [each for each in self.regions if each.done]:
            region = self.regions.pop(submission)
            error, nbytes = submission.error, submission.nbytes
            if error is not None:
                assert isinstance(error, CANCELLED), error
                assert submission.excused
            if region.writes:
                assert error or nbytes == len(submission.data)
                if nbytes:
                    end = region.start + nbytes
                    self.model.extend(bytes(max(0, end - len(self.model))))
                    self.model[region.start : end] = submission.sent
                    self.size = max(self.size, self.base + end)
            elif isinstance(submission.operation, portio.Sync | portio.Write):
                assert nbytes == 0  # a write of nothing
            else:
                expected = self.expected(submission)
                assert nbytes <= len(expected)
                assert error or nbytes == len(expected)
                if isinstance(submission.operation, portio.SendFile):
                    submission.received = expected[:nbytes]
                assert submission.received == expected[:nbytes]

    def finish_all(self) -> None:
        """Wait until nothing is under way."""
        self.ledger.settle(self.ports, self.drain_sink)
        self.drain_sink()
        self.check_completed()
        self.check_arrived()
        assert all(file.size() == self.size for file in self.files)

    def check_arrived(self) -> None:
        """Nothing is under way: what has come out of the socket is what the completions say."""
        sent = bytearray()
        for submission in self.sent:
            sent += submission.received
            if WINDOWS and isinstance(submission.error, CANCELLED):
                # It does not say how much of the last step has gone (docs/iocp.md).
                del self.arrived[len(sent) :]
                break
        assert self.arrived == sent, f"{len(sent)} bytes sent, {len(self.arrived)} arrived"
        self.sent.clear()
        self.arrived.clear()

    def drain_sink(self) -> bool:
        """Take what SendFile has sent."""
        try:
            while data := self.sink.recv(1 << 18):
                self.arrived += data
        except BlockingIOError:
            pass
        return False

    # The operations

    def start(
        self, which: int, submission: Submission, start: int, size: int, *, writes: bool
    ) -> Submission:
        """Submit, as soon as the part of the file is free."""
        region = self.claim(start, start + size, writes=writes)
        self.submit(self.ports[which], submission)
        self.regions[submission] = region
        return submission

    @rule(
        target=submitted,
        which=st.integers(0, 1),
        offset=OFFSETS,
        shape=SHAPES,
        queued=st.booleans(),
    )
    def read(self, which: int, offset: int, shape: Shape, *, queued: bool) -> Submission:
        """Read anywhere, also beyond the end."""
        buffers = [self.ledger.buffer(size) for size in shape.sizes]
        operation = portio.Read(self.keys[which], shape.argument(buffers), self.base + offset)
        submission = Submission(operation, self.ports[which], queued, buffers)
        return self.start(which, submission, offset, sum(shape.sizes), writes=False)

    @rule(
        target=submitted,
        which=st.integers(0, 1),
        offset=OFFSETS,
        shape=SHAPES,
        at=st.integers(0, 100_000),
        queued=st.booleans(),
        mutable=st.booleans(),
    )
    def write(
        self, which: int, offset: int, shape: Shape, at: int, *, queued: bool, mutable: bool
    ) -> Submission:
        """Write anywhere, also beyond the end."""
        parts: list[bytes] = []
        for size in shape.sizes:
            parts.append(PATTERN[at : at + size])
            at = (at + size) % (len(PATTERN) // 2)
        data = b"".join(parts)
        buffers = [self.ledger.buffer(0, part) for part in parts] if mutable else []
        argument: Any = shape.argument(buffers or parts)
        operation = portio.Write(self.keys[which], argument, self.base + offset)
        submission = Submission(operation, self.ports[which], queued, buffers, data)
        return self.start(which, submission, offset, len(data), writes=bool(data))

    @rule(
        target=submitted,
        source=st.integers(0, 1),
        by_number=st.booleans(),
        offset=OFFSETS,
        count=st.none() | st.integers(0, 10) | st.sampled_from([5000, 200_000]),
        queued=st.booleans(),
    )
    def send_file(
        self, source: int, offset: int, count: int | None, *, by_number: bool, queued: bool
    ) -> Submission:
        """Send a part of the file through a socket whose buffer fills quickly."""
        file = self.files[source]
        operation = portio.SendFile(
            self.out, file.fileno() if by_number else file, self.base + offset, count
        )
        submission = Submission(operation, self.ports[0], queued)
        size = TO_THE_END if count is None else count
        self.start(0, submission, offset, size, writes=False)
        self.sent.append(submission)
        return submission

    @rule(target=submitted, which=st.integers(0, 1), data_only=st.booleans())
    def sync(self, which: int, *, data_only: bool) -> Submission:
        """Changes nothing that a model could see."""
        submission = Submission(portio.Sync(self.keys[which], data_only), self.ports[which])
        return self.start(which, submission, 0, 0, writes=False)

    @rule(target=submitted, old=submitted)
    def again(self, old: Submission) -> Submission:
        """A completed operation may be submitted again; a pending one may not."""
        operation = old.operation
        if operation.pending:
            with pytest.raises(RuntimeError):
                old.port.submit(operation)
            return old
        if isinstance(operation, portio.SendFile | portio.Sync):
            return old
        assert isinstance(operation, portio.Read | portio.Write)
        self.check_completed()
        again = Submission(operation, old.port, old.queued, old.buffers, old.data)
        start = operation.offset - self.base
        which = self.ports.index(old.port)
        size = len(old.data) or old.room
        return self.start(which, again, start, size, writes=bool(old.data))

    @rule(submission=submitted)
    def cancel(self, submission: Submission) -> None:
        """A request; afterwards each byte still is what the completion says."""
        for life in self.ledger.pending.values():
            if life.operation is submission.operation:
                life.excused = True
        submission.operation.cancel()

    @rule(which=st.integers(0, 1), limit=st.integers(1, 8))
    def take(self, which: int, limit: int) -> None:
        """Take what is there, and wait for a while when there is nothing."""
        self.ledger.take(self.ports[which], limit)
        self.drain_sink()
        self.check_completed()

    @rule(submission=submitted)
    def wait(self, submission: Submission) -> None:
        """Ask for the completion of an unqueued operation."""
        if not submission.done and not submission.queued:
            self.ledger.wait(submission)
            self.check_completed()

    @rule(size=OFFSETS, which=st.integers(0, 1))
    def truncate(self, size: int, which: int) -> None:
        """Cut the file, or make it longer, while nothing is under way."""
        self.finish_all()
        self.files[which].truncate(self.base + size)
        self.model.extend(bytes(max(0, size - len(self.model))))
        del self.model[size:]
        self.size = self.base + size

    @rule()
    def buffers_are_pinned(self) -> None:
        """From submit to the completion."""
        self.ledger.check_pinned()

    # The end

    def settle(self) -> None:
        """The file must be what the model says."""
        if self.finish == "close":
            return
        if self.finish == "cancel":
            self.cancel_all()
        self.finish_all()
        with (self.folder / "file").open("rb") as file:
            file.seek(self.base)
            assert file.read() == self.model

    def release(self) -> None:
        """Close the files, and remove them."""
        self.source.close()
        self.sink.close()
        for file in self.files:
            assert is_open(file.fileno())
            file.close()
        self.keys.clear()
        self.__dict__.pop("out", None)
        self.regions.clear()
        shutil.rmtree(self.folder)


def test_files(backend: str, *, thread_bound: bool) -> None:
    """A random walk over one file."""
    walk(functools.partial(FileMachine, backend, thread_bound), examples=60, steps=40)
