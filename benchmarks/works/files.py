"""A whole file, read from its beginning to its end, or copied."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks import subjects
from benchmarks.model import Case, Context, Metric, Subject, Work
from benchmarks.programs import Sample, run

MIB = 1 << 20
SIZE, QUICK_SIZE = 256 * MIB, 16 * MIB
WORKS = {"read": "sequential reads of 1 MiB", "copy": "a copy, in blocks of 1 MiB"}
STATES = {"cached": "from the page cache", "cold": "not in the page cache"}


def _source(context: Context) -> Path:
    return context.scratch / "whole.data"


def _prepare(context: Context) -> None:
    """Write the file to the disk; that it was just written is why it is in the page cache."""
    size = QUICK_SIZE if context.quick else SIZE
    with _source(context).open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


def _settle(source: Path, state: str) -> None:
    """Have the whole file in the page cache, or nothing of it."""
    with source.open("rb", buffering=0) as file:
        if state == "cold":
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while file.read(MIB):
                pass


def _measure(context: Context, case: Case, subject: Subject) -> Sample:
    source, target = _source(context), context.scratch / "whole.copy"
    work, state = str(case.parameters["work"]), str(case.parameters["state"])
    target.unlink(missing_ok=True)  # everybody makes a new file
    command = subject.program.command(work, source, target, MIB)
    _settle(source, state)
    try:
        sample = run(command)
        if sample["count"] != source.stat().st_size:
            raise RuntimeError(f"{command}: {sample['count']} bytes")
        if work == "copy" and target.stat().st_size != source.stat().st_size:
            raise RuntimeError(f"{command}: a copy of {target.stat().st_size} bytes")
    finally:
        target.unlink(missing_ok=True)
    return {
        "rate": sample["count"] / sample["wall"],
        "cpu": sample["cpu"] / sample["count"] * MIB,
    }


WORK = Work(
    name="files",
    title="Whole files",
    notes=(
        "A file of 256 MiB, from one end to the other. CPU is user and system time, all threads, "
        "for each MiB. Nobody waits until the copy is on the disk. dd has the same block size, cp "
        "chooses its own; what the two take with an empty file is left out. Where files can share "
        "their blocks, cp does not copy them."
    ),
    cases=tuple(
        Case(f"{work}-{state}", f"{what}, {where}", {"work": work, "state": state})
        for work, what in WORKS.items()
        for state, where in STATES.items()
    ),
    subjects=subjects.FILES,
    metrics=(Metric("rate", "MiB/s", 1 / MIB, 0), Metric("cpu", "CPU, µs/MiB", 1e6, 1)),
    references=(subjects.DD, subjects.CP),
    measure=_measure,
    prepare=_prepare,
)
