"""Reads of a file, in the page cache or not: what a read costs, many in flight."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks import subjects
from benchmarks.model import Case, Context, Goal, Metric, Subject, Work
from benchmarks.programs import Sample, run

MIB = 1 << 20
COUNTS = {"random": 60_000, "sequential": 1_000}
UNCACHED = 3_000  # few of the file's blocks, so that hardly one is read twice
LEAST = {"random": 1_000, "sequential": 300}  # however slow the subject
BLOCKS = {"random": 4096, "sequential": MIB}


def _case(order: str, depth: int) -> Case:
    size = "4 KiB random" if order == "random" else "1 MiB sequential"
    return Case(
        f"{order}-{depth}",
        f"{size} reads, {depth} in flight",
        {"order": order, "depth": depth, "block": BLOCKS[order]},
    )


def _uncached(depth: int) -> Case:
    return Case(
        f"uncached-{depth}",
        f"4 KiB random reads of what is not in the page cache, {depth} in flight",
        {"order": "random", "depth": depth, "block": BLOCKS["random"], "evict": 1},
    )


def _file(context: Context) -> Path:
    return context.scratch / "reads.data"


def _prepare(context: Context) -> None:
    """Write the file; that it was just written is why it is in the page cache."""
    with _file(context).open("wb") as file:
        for _ in range(16 if context.quick else 256):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


def _evict(path: Path) -> None:
    """Have the system forget the file's pages; they were written to the disk before."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _measure(context: Context, case: Case, subject: Subject) -> Sample:
    order, depth = str(case.parameters["order"]), int(case.parameters["depth"])
    path = _file(context)
    if "evict" in case.parameters:
        count = max(context.count(UNCACHED, subject), 4 * depth)
        _evict(path)
    else:
        count = max(context.count(COUNTS[order], subject), LEAST[order], 2 * depth)
    sample = run(subject.program.command(path, case.parameters["block"], depth, count, order))
    return {
        "wall": sample["wall"] / count,
        "cpu": sample["cpu"] / count,
        "rate": count * int(case.parameters["block"]) / sample["wall"],
    }


def _goals() -> list[Goal]:
    goals = []
    for backend in subjects.BACKENDS:
        for kind in subjects.THREAD_BOUND:
            name = subjects.portio_name(backend, kind)
            goals.append(Goal("random-32", name, 3.0, subjects.C_IO_URING))
    name = subjects.PORTIO_TRIO.format("io_uring")
    goals.append(Goal("random-32", name, 1 / 12, subjects.TRIO_THREAD))
    goals.append(Goal("random-32", name, 1.0, subjects.ASYNCIO_CAIO))
    return goals


WORK = Work(
    name="reads",
    title="File reads",
    notes=(
        "Time and CPU (user and system, all threads) for each read of a file that is in the "
        "page cache, or has just been evicted from it. pread and preadv have one read in flight "
        "whatever the row says."
    ),
    cases=(
        *(_case(order, depth) for order in BLOCKS for depth in (1, 32, 128)),
        *(_uncached(depth) for depth in (1, 32, 128)),
    ),
    subjects=subjects.READS,
    metrics=(
        Metric("wall", "time, µs", 1e6, 2),
        Metric("cpu", "CPU, µs", 1e6, 2),
        Metric("rate", "MiB/s", 1 / MIB, 0),
    ),
    references=(
        subjects.C_IO_URING,
        "os.preadv",
        subjects.TRIO_THREAD,
        subjects.ASYNCIO_CAIO,
    ),
    measure=_measure,
    goals=tuple(_goals()),
    prepare=_prepare,
)
