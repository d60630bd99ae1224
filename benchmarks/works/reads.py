"""Reads of a file, in the page cache or not: what a read costs, one or many in flight."""

from __future__ import annotations

from pathlib import Path

from benchmarks import datafile, subjects
from benchmarks.datafile import MIB
from benchmarks.model import Case, Context, Metric, Subject, Work
from benchmarks.programs import Sample, run

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
    datafile.write(_file(context), (16 if context.quick else 256) * MIB)


def _measure(context: Context, case: Case, subject: Subject) -> Sample:
    depth = int(case.parameters["depth"])
    path = _file(context)
    if "evict" in case.parameters:
        count = max(context.count(UNCACHED, subject), 4 * depth)
        datafile.evict(path)
    else:
        count = max(context.count(COUNT, subject), LEAST, 2 * depth)
    sample = run(subject.program.command(path, BLOCK, depth, count))
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
