"""The project's goals as data, and how a run measures up to them.

A goal is a ratio of two figures of the same run with a bound.  The ratio is that of the medians
over the repetitions; how far to trust it is told by the ratios of the single repetitions, of
which the middle half is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks import subjects
from benchmarks.results import Run
from benchmarks.statistics import middle_half, ratio, ratios

DISTURBED = 0.1  # of the processors used by others: too much to trust a verdict

AT_MOST = "\N{LESS-THAN OR EQUAL TO}"
AT_LEAST = "\N{GREATER-THAN OR EQUAL TO}"


@dataclass(frozen=True)
class Figure:
    """What is compared: a metric of a subject, in a case of a work."""

    work: str
    case: str
    subject: str
    metric: str


@dataclass(frozen=True)
class Constant:
    """A fixed figure to compare with, in the unit of the metric: seconds, bytes."""

    name: str
    value: float


@dataclass(frozen=True)
class Goal:
    """A ratio that the project wants to reach."""

    title: str
    measured: Figure
    reference: Figure | Constant
    sense: str = AT_MOST
    bound: float | None = None  # None: the ratio is told, and nothing is wanted of it
    against: str = ""  # what the reference is called; its subject when empty

    @property
    def reference_name(self) -> str:
        """Say what is compared with."""
        if self.against:
            return self.against
        both = self.reference
        return both.name if isinstance(both, Constant) else both.subject

    @property
    def wanted(self) -> str:
        """Say what ratio is wanted, to what."""
        if self.bound is None:
            return f"to {self.reference_name}"
        return f"{self.sense} {self.bound:g} \N{MULTIPLICATION SIGN} {self.reference_name}"


def _goals() -> Iterator[Goal]:
    yield from _echo()
    yield from _files()
    yield from _threads()
    yield from _connections()
    yield from _trio()


def _beside(
    title: str, measured: Figure, sense: str, bounds: dict[str, float | None]
) -> Iterator[Goal]:
    """Compare a figure with the same figure of other subjects."""
    for subject, bound in bounds.items():
        yield Goal(title, measured, replace(measured, subject=subject), sense, bound)


# Where a goal names no engine, it is a goal for both.  Servers and reads of one thread use a
# thread-bound port that submits lazily, as the documentation advises.
ENGINES = {one: subjects.portio_name(one, "thread-bound, lazy") for one in subjects.BACKENDS}
POOLED = {one: subjects.portio_name(one, "thread-bound, lazy, pool") for one in subjects.BACKENDS}
LENT = {one: subjects.portio_name(one, "thread-bound, lazy, lent") for one in subjects.BACKENDS}
# For small messages with a pool, and for large ones with its buffers themselves, as the
# documentation advises as well; with a buffer for each connection it is told.
SMALL, LARGE, OTHER = POOLED, LENT, ENGINES


def _echo() -> Iterator[Goal]:
    bounds: dict[str, dict[str, float | None]] = {
        "io_uring": {
            subjects.UVLOOP_PROTOCOL: 1.05,
            subjects.C_IO_URING: 1.3,
            subjects.UVLOOP_SOCK: 0.35,
        },
        "epoll": {subjects.UVLOOP_PROTOCOL: 1.15},
    }
    for backend in subjects.BACKENDS:
        for count in (50, 500):
            title = f"echo of 64 B, {count} connections: CPU"
            figure = Figure("echo", f"{count}x64B", SMALL[backend], "cpu")
            yield from _beside(title, figure, AT_MOST, bounds[backend])
            other = replace(figure, subject=OTHER[backend])
            yield from _beside(title, other, AT_MOST, {subjects.UVLOOP_PROTOCOL: None})
    for backend in subjects.BACKENDS:
        for count in (50, 500):
            title = f"echo of 16 KiB, {count} connections: CPU"
            figure = Figure("echo", f"{count}x16KiB", LARGE[backend], "cpu")
            yield from _beside(title, figure, AT_MOST, {subjects.UVLOOP_PROTOCOL: 1.0})
            other = replace(figure, subject=OTHER[backend])
            yield from _beside(title, other, AT_MOST, {subjects.UVLOOP_PROTOCOL: None})
    for backend in subjects.BACKENDS:
        title = "one connection, to and fro: latency"
        figure = Figure("echo", "1x64B", SMALL[backend], "p50")
        yield from _beside(title, figure, AT_MOST, {subjects.UVLOOP_PROTOCOL: 1.0})
        other = replace(figure, subject=OTHER[backend])
        yield from _beside(title, other, AT_MOST, {subjects.UVLOOP_PROTOCOL: None})


def _files() -> Iterator[Goal]:
    for ours in ENGINES.values():
        title = "4 KiB random reads, cached, 32 in flight"
        yield from _beside(
            f"{title}: CPU",
            Figure("reads", "random-32", ours, "cpu"),
            AT_MOST,
            {subjects.C_IO_URING: 1.8},
        )
        yield from _beside(
            f"{title}: throughput",
            Figure("reads", "random-32", ours, "rate"),
            AT_LEAST,
            {subjects.ASYNCIO_CAIO: 2, subjects.ASYNCIO_CAIO_PLAIN: 2},
        )
    for state, where in (("cached", "cached"), ("direct", "past the cache")):
        for depth in (1, 4):
            yield from _beside(
                f"1 MiB sequential reads, {where}: CPU",
                Figure("files", f"read-{state}", subjects.registered_name(depth), "cpu"),
                AT_MOST,
                {subjects.files_name("io_uring", depth): None},
            )
    for work, title, peers in (
        ("read", "1 MiB sequential reads", (subjects.DD,)),
        ("copy", "copy of a file, 1 MiB", (subjects.DD, subjects.CP)),
    ):
        for state, where in (("cached", "cached"), ("cold", "not cached")):
            for backend in subjects.BACKENDS:
                # dd and cp have one block in flight; portio's own copy has several.
                for depth in (1, 4):
                    bound = 0.95 if depth == 1 or work == "copy" else None
                    names = {subjects.files_name(backend, depth): bound}
                    if backend == "io_uring":
                        # The ring knows the blocks, as the documentation advises for large ones;
                        # the other is told.
                        names = {subjects.registered_name(depth): bound, **dict.fromkeys(names)}
                    for name, wanted in names.items():
                        yield from _beside(
                            f"{title}, {where}: throughput",
                            Figure("files", f"{work}-{state}", name, "rate"),
                            AT_LEAST,
                            dict.fromkeys(peers, wanted),
                        )


def _threads() -> Iterator[Goal]:
    for backend in subjects.BACKENDS:
        for kind in ("thread-bound", subjects.WORKERS[1]):
            figure = Figure("posts", "1-to-1", subjects.portio_name(backend, kind), "rate")
            yield from _beside(
                "post to get, one thread to one: throughput",
                figure,
                AT_LEAST,
                {subjects.QUEUE: 1.0, subjects.SIMPLE_QUEUE: None},
            )
    for backend in subjects.BACKENDS:
        one = subjects.portio_name(backend, subjects.WORKERS[1])
        for number in (2, 4):
            name = subjects.portio_name(backend, subjects.WORKERS[number])
            figure = Figure("threads", "50x64B", name, "rate")
            # Equal is good enough, and equal things differ by some per cent.
            yield from _beside("echo on a shared port: throughput", figure, AT_LEAST, {one: 0.95})


def _connections() -> Iterator[Goal]:
    for backend in subjects.BACKENDS:
        figure = Figure("accepts", "burst", SMALL[backend], "rate")
        yield from _beside("accepts per second", figure, AT_LEAST, {subjects.UVLOOP_PROTOCOL: 1.5})
        other = replace(figure, subject=OTHER[backend])
        yield from _beside("accepts per second", other, AT_LEAST, {subjects.UVLOOP_PROTOCOL: None})
    for backend in subjects.BACKENDS:
        figure = Figure("idle", "10000", OTHER[backend], "memory")
        limit = Constant("1.5 KiB", 1536)
        yield Goal(
            "10,000 connections: memory of one, without its buffer", figure, limit, AT_MOST, 1.0
        )
        pooled = replace(figure, subject=SMALL[backend])
        yield Goal("10,000 connections: memory of one, with a pool", pooled, limit)
        # As above: independent of the number is equal, give or take some per cent.
        yield Goal(
            "10,000 connections: CPU of an echo on one of them",
            replace(figure, metric="cpu"),
            replace(figure, metric="cpu_few"),
            AT_MOST,
            1.1,
            "that with 100",
        )


def _trio() -> Iterator[Goal]:
    for backend in subjects.BACKENDS:
        ours = subjects.PORTIO_TRIO.format(backend)
        figure = Figure("echo", "50x64B", ours, "cpu")
        yield from _beside(
            "trio, echo of 64 B, 50 connections: CPU", figure, AT_MOST, {subjects.TRIO: 0.75}
        )
        figure = Figure("reads", "random-32", ours, "rate")
        yield from _beside(
            "trio, 4 KiB random reads, cached, 32 tasks: throughput",
            figure,
            AT_LEAST,
            {subjects.TRIO_THREAD: 14},
        )


GOALS: tuple[Goal, ...] = tuple(_goals())


@dataclass(frozen=True)
class Verdict:
    """A goal, and what a run says of it."""

    goal: Goal
    ratio: float | None = None  # None: a side was not measured
    each: tuple[float, ...] = ()  # the ratios of the single repetitions
    reason: str = ""  # why there is no ratio
    doubts: tuple[str, ...] = ()  # why the verdict may be wrong

    @property
    def reached(self) -> bool | None:
        """Tell whether the goal is reached; None if that is not known, or nothing is wanted."""
        bound = self.goal.bound
        if self.ratio is None or bound is None:
            return None
        return self.ratio <= bound if self.goal.sense == AT_MOST else self.ratio >= bound

    @property
    def middle(self) -> tuple[float, float]:
        """Give the bounds of the middle half of the repetitions' ratios, when there is a ratio."""
        return middle_half(self.each)

    @property
    def word(self) -> str:
        """Give the verdict in a word."""
        if self.ratio is None:
            return "not measured"
        return {True: "pass", False: "short", None: "told"}[self.reached]

    @property
    def text(self) -> str:
        """Give the verdict, and the reasons to doubt it or for its absence."""
        if self.ratio is None:
            return f"{self.word}: {self.reason}"
        return ", ".join([self.word, *(self.doubts if self.reached is not None else ())])


def evaluate(run: Run, goals: Sequence[Goal] = GOALS) -> list[Verdict]:
    """Hold a run against the goals whose works it measured, at least in part."""
    measured = {result.work.name for result in run.results}
    return [_verdict(run, goal) for goal in goals if goal.measured.work in measured]


def _verdict(run: Run, goal: Goal) -> Verdict:
    sides = [goal.measured]
    if isinstance(goal.reference, Figure):
        sides.append(goal.reference)
    for side in sides:
        if reason := _absence(run, side):
            return Verdict(goal, reason=reason)
    values = _values(run, goal.measured)
    if isinstance(goal.reference, Figure):
        base = _values(run, goal.reference)
    else:
        base = [goal.reference.value] * len(values)
    found, each = ratio(values, base), ratios(values, base)
    if found is None or not each:
        return Verdict(goal, reason=f"{goal.reference_name} measured nothing")
    doubts = ["quick"] if run.quick else []
    cases = (run.case(side.work, side.case) for side in sides)
    if any(case and case.disturbance > DISTURBED for case in cases):
        doubts.append("disturbed")
    return Verdict(goal, found, tuple(each), doubts=tuple(doubts))


def _values(run: Run, side: Figure) -> list[float]:
    case = run.case(side.work, side.case)
    return case.values(side.subject, side.metric) if case else []


def _absence(run: Run, side: Figure) -> str:
    """Say why a figure is not among the results; nothing if it is."""
    case = run.case(side.work, side.case)
    if case is None:
        return f"{side.work}/{side.case} is not in this run"
    if reason := case.reason(side.subject):
        return reason
    if not case.values(side.subject, side.metric):
        return f"{side.subject} is not in this run"
    return ""


def summary(verdicts: Sequence[Verdict]) -> str:
    """Count the verdicts in a line."""
    counts = Counter(verdict.word for verdict in verdicts if verdict.word != "told")
    return ", ".join(f"{counts[word]} {word}" for word in ("pass", "short", "not measured"))
