"""Reads of a file, in the page cache or not: what a read costs, one or many in flight."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks import subjects
from benchmarks.model import Case, Context, Metric, Subject, Work
from benchmarks.programs import Sample, run

MIB = 1 << 20
BLOCK = 4096
COUNT = 40_000
UNCACHED = 3_000  # few of the file's blocks, so that hardly one is read twice
LEAST = 1_000  # however slow the subject


def _case(depth: int) -> Case:
    title = f"4 KiB random reads, {depth} in flight"
    return Case(f"random-{depth}", title, {"depth": depth})


def _uncached(depth: int) -> Case:
    title = f"4 KiB random reads of what is not in the page cache, {depth} in flight"
    return Case(f"uncached-{depth}", title, {"depth": depth, "evict": 1})


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
    depth = int(case.parameters["depth"])
    path = _file(context)
    if "evict" in case.parameters:
        count = max(context.count(UNCACHED, subject), 4 * depth)
        _evict(path)
    else:
        count = max(context.count(COUNT, subject), LEAST, 2 * depth)
    sample = run(subject.program.command(path, BLOCK, depth, count, "random"))
    return {
        "wall": sample["wall"] / count,
        "cpu": sample["cpu"] / count,
        "rate": count / sample["wall"],
    }


WORK = Work(
    name="reads",
    title="Random reads of a file",
    notes=(
        "Time and CPU (user and system, all threads) for each read of a file that is in the "
        "page cache, or has just been evicted from it. pread and preadv have one read in flight "
        "whatever the row says."
    ),
    cases=(
        *(_case(depth) for depth in (1, 32, 128)),
        _uncached(32),
    ),
    subjects=subjects.READS,
    metrics=(
        Metric("wall", "time, µs", 1e6, 2),
        Metric("cpu", "CPU, µs", 1e6, 2),
        Metric("rate", "reads/s", 1, 0),
    ),
    references=(
        subjects.C_IO_URING,
        "os.preadv",
        subjects.TRIO_THREAD,
        subjects.ASYNCIO_CAIO,
    ),
    measure=_measure,
    prepare=_prepare,
)
