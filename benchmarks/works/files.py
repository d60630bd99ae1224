"""A whole file, read from its beginning to its end, or copied."""

from __future__ import annotations

from pathlib import Path

from benchmarks import datafile, subjects
from benchmarks.datafile import MIB
from benchmarks.model import Case, Context, Metric, Subject, Work
from benchmarks.programs import Sample, run

SIZE, QUICK_SIZE = 256 * MIB, 16 * MIB
WORKS = {"read": "sequential reads of 1 MiB", "copy": "a copy, in blocks of 1 MiB"}
STATES = {
    "cached": "from the page cache",
    "cold": "not in the page cache",
    "direct": "past the page cache",
}


def _source(context: Context) -> Path:
    return context.scratch / "whole.data"


def _prepare(context: Context) -> None:
    datafile.write(_source(context), QUICK_SIZE if context.quick else SIZE)


def _measure(context: Context, case: Case, subject: Subject) -> Sample:
    source, target = _source(context), context.scratch / "whole.copy"
    work, state = str(case.parameters["work"]), str(case.parameters["state"])
    target.unlink(missing_ok=True)  # everybody makes a new file
    how = ("--direct",) if state == "direct" else ()
    command = subject.program.command(work, source, target, MIB, *how)
    datafile.warm(source) if state == "cached" else datafile.evict(source)
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
        "their blocks, cp does not copy them. Past the page cache (O_DIRECT) the disk decides how "
        "fast it is. Registered: the blocks are memory that the ring knows."
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
