"""Cancel against completion: each operation ends once, and takes no byte with it."""

from __future__ import annotations

import functools
import itertools
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import portio
from support.marks import wine_forgets_what_was_sent
from support.threads import Background
from support.watch import LIMIT, fail_with_dump

from .lanes import (
    AcceptLane,
    ConnectLane,
    DatagramLane,
    FileLane,
    Lane,
    Outcome,
    PipeReadLane,
    PipeWriteLane,
    ReceiveLane,
    SendFileLane,
    SendLane,
    TimerLane,
)

Making = Callable[[portio.Port, random.Random], Lane]
WINDOW = 64  # operations under way at the same time
STOP = portio.CompletionKey("stop")

# How many operations, in how many lanes.
KINDS: dict[str, tuple[type[Lane], int, int]] = {
    "receive": (ReceiveLane, 20_000, 16),
    "pipe-read": (PipeReadLane, 10_000, 8),
    "datagram": (DatagramLane, 10_000, 8),
    "send": (SendLane, 8000, 8),
    "send-file": (SendFileLane, 4000, 4),
    "pipe-write": (PipeWriteLane, 6000, 8),
    "timer": (TimerLane, 8000, 2),
    "accept": (AcceptLane, 2000, 2),
    "connect": (ConnectLane, 2000, 2),
    "file": (FileLane, 4000, 2),
}


# How the streams are compared depends on what a cancelled send says.
MARKS = {"send": [wine_forgets_what_was_sent], "send-file": [wine_forgets_what_was_sent]}


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, [])) for name in KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    """The name of each kind of operation in turn."""
    name: str = request.param
    return name


class Race:
    """Lanes on a port, with a thread that feeds and a thread that cancels."""

    def __init__(self, port: portio.Port, lanes: Sequence[Lane], rng: random.Random) -> None:
        self.port = port
        self.lanes = lanes
        self.rng = rng
        self.outcomes: dict[int, tuple[Lane, Outcome]] = {}
        self.window = threading.Semaphore(WINDOW)
        self.to_feed: queue.SimpleQueue[Lane | None] = queue.SimpleQueue()
        self.to_cancel: queue.SimpleQueue[portio.Operation[Any] | None] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.left = 0

    def prepare(self, lane: Lane) -> portio.Operation[Any]:
        """Make an operation, and remember it before anybody can complete it."""
        operation = lane.make()
        outcome = Outcome(operation)
        lane.outcomes.append(outcome)
        with self.lock:
            self.outcomes[id(operation)] = (lane, outcome)
            self.left += 1
        return operation

    def started(self, lane: Lane, operation: portio.Operation[Any]) -> None:
        """Leave a started operation to the threads that fight over it."""
        if lane.feeds and lane.rng.random() < 0.8:
            self.to_feed.put(lane)
        self.to_cancel.put(operation)

    def enter(self, completion: portio.Completion[Any]) -> None:
        """The one completion of an operation."""
        assert completion.operation is not None
        lane, outcome = self.outcomes[id(completion.operation)]
        outcome.completions += 1
        assert outcome.completions == 1, "a second completion"
        outcome.nbytes, outcome.error = completion.nbytes, completion.error
        if completion.error is not None:
            assert isinstance(completion.error, portio.OperationCancelledError), completion.error
        lane.enter(outcome, completion)
        with self.lock:
            self.left -= 1
        self.window.release()

    def feed(self) -> None:
        """The thread that helps operations to complete."""
        while (lane := self.to_feed.get()) is not None:
            lane.feed()

    def cancel(self) -> None:
        """The thread that cancels all of them, some soon and some late."""
        chance = random.Random(self.rng.random())
        late: list[portio.Operation[Any]] = []
        more = True
        while more or late:
            try:
                # What is late is cancelled at the latest when nothing else comes.
                operation = self.to_cancel.get(timeout=0.002 if late else LIMIT * 2)
            except queue.Empty:
                late.pop().cancel()
                continue
            if operation is None:
                more = False
            elif chance.random() < 0.5:
                operation.cancel()
            else:
                late.append(operation)
                if len(late) > WINDOW // 2:
                    late.pop(chance.randrange(len(late))).cancel()

    def finish(self) -> None:
        """Everything must have completed, both ways must have happened."""
        assert self.left == 0
        outcomes = [outcome for _, outcome in self.outcomes.values()]
        assert all(outcome.completions == 1 for outcome in outcomes)
        for lane in self.lanes:
            lane.check()
        cancelled = sum(outcome.error is not None for outcome in outcomes)
        print(f"{len(outcomes)} operations, {cancelled} cancelled")


def make_lanes(
    kind: str, port: portio.Port, rng: random.Random, folder: Path
) -> tuple[int, list[Lane]]:
    """The number of operations, and what they are to be made with."""
    lane, count, lanes = KINDS[kind]
    make: Making = functools.partial(FileLane, folder=folder) if lane is FileLane else lane
    return count, [make(port, rng) for _ in range(lanes)]


@pytest.mark.usefixtures("no_leak")
def test_shared(kind: str, backend: str, rng: random.Random, tmp_path: Path) -> None:
    """Two threads submit, two take, one feeds, one cancels."""
    with portio.Port(4, backend=backend) as port:
        count, lanes = make_lanes(kind, port, rng, tmp_path)
        race = Race(port, lanes, rng)

        def submit(own: Sequence[Lane]) -> None:
            turns = itertools.cycle(own)
            for _ in range(count // 2):
                lane = next(turns)
                if not race.window.acquire(timeout=LIMIT):
                    fail_with_dump(f"{race.left} operations do not complete")
                operation = race.prepare(lane)
                port.submit(operation)
                race.started(lane, operation)

        def take(limit: int) -> None:
            over = False
            while not over:
                for completion in port.get_many(limit):
                    if completion.key is STOP:
                        over = True
                    else:
                        race.enter(completion)
            port.post(STOP)  # for the next one

        try:
            takers = [Background(take, 1), Background(take, 1 if kind == "accept" else 16)]
            submitters = [Background(submit, lanes[0::2]), Background(submit, lanes[1::2])]
            feeder, canceller = Background(race.feed), Background(race.cancel)
            for thread in submitters:
                thread.result(LIMIT * 3)
            race.to_cancel.put(None)
            canceller.result()
            end = time.monotonic() + LIMIT
            while race.left:
                if time.monotonic() > end or not all(taker.is_alive() for taker in takers):
                    break
                time.sleep(0.002)
            port.post(STOP)
            for taker in takers:
                taker.result()
            race.to_feed.put(None)
            feeder.result()
            race.finish()
        finally:
            race.to_feed.put(None)
            race.to_cancel.put(None)
            for lane in lanes:
                lane.close()


@pytest.mark.usefixtures("no_leak")
def test_thread_bound(kind: str, backend: str, rng: random.Random, tmp_path: Path) -> None:
    """The owner submits and takes; another thread feeds, and a third one cancels."""
    with portio.Port(backend=backend, thread_bound=True) as port:
        count, lanes = make_lanes(kind, port, rng, tmp_path)
        race = Race(port, lanes, rng)
        feeder, canceller = Background(race.feed), Background(race.cancel)
        try:
            turns = itertools.cycle(lanes)
            submitted = 0
            quiet = time.monotonic()
            while submitted < count or race.left:
                while submitted < count and race.left < WINDOW:
                    lane = next(turns)
                    operation = race.prepare(lane)
                    port.submit(operation)
                    race.started(lane, operation)
                    submitted += 1
                for completion in port.get_many(timeout=0.05):
                    race.enter(completion)
                    quiet = time.monotonic()
                if time.monotonic() > quiet + LIMIT:
                    fail_with_dump(f"{race.left} operations do not complete")
            race.to_cancel.put(None)
            canceller.result()
            race.to_feed.put(None)
            feeder.result()
            race.finish()
        finally:
            race.to_feed.put(None)
            race.to_cancel.put(None)
            for lane in lanes:
                lane.close()


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("kind", ["receive", "send", "timer"])
def test_unqueued(kind: str, backend: str, rng: random.Random, tmp_path: Path) -> None:
    """Operations that are waited for one by one, in two threads."""
    with portio.Port(4, backend=backend) as port:
        _, lanes = make_lanes(kind, port, rng, tmp_path)
        race = Race(port, lanes, rng)
        feeder, canceller = Background(race.feed), Background(race.cancel)

        def work(own: Sequence[Lane], chance: random.Random) -> None:
            for lane in itertools.islice(itertools.cycle(own), 1500):
                operation = race.prepare(lane)
                port.submit(operation, queued=False)
                race.started(lane, operation)
                end = time.monotonic() + LIMIT
                completion = None
                while completion is None:
                    if time.monotonic() > end:
                        fail_with_dump(f"{operation!r} does not complete")
                    completion = operation.wait(chance.choice([0, 0.0001, 0.01]))
                race.enter(completion)

        try:
            workers = [
                Background(work, lanes[start::2], random.Random(rng.random())) for start in (0, 1)
            ]
            for worker in workers:
                worker.result(LIMIT * 3)
            race.to_cancel.put(None)
            canceller.result()
            race.to_feed.put(None)
            feeder.result()
            race.finish()
            assert port.get(0) is None  # nothing of this is queued
        finally:
            race.to_feed.put(None)
            race.to_cancel.put(None)
            for lane in lanes:
                lane.close()
