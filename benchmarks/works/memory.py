"""Operations that wait: what memory each takes."""

from __future__ import annotations

from benchmarks import subjects
from benchmarks.model import Case, Context, Metric, Subject, Work
from benchmarks.programs import Sample, run

CASES = (
    Case("receives", "a receive pending on each of many sockets", {"count": 4_000}),
    Case("timers", "many timers pending", {"count": 4_000}),
)


def _measure(context: Context, case: Case, subject: Subject) -> Sample:
    # Never few: memory comes in pages, and in arenas of many pages.
    count = max(1_000, context.count(float(case.parameters["count"]), subject))
    sample = run(subject.program.command(case.name, count))
    return {key: sample[key] / sample["count"] for key in ("operation", "handle")}


WORK = Work(
    name="memory",
    title="Memory of pending operations",
    notes=(
        "Growth of the process's resident memory, C and Python, for each pending operation, "
        "its buffer not counted; and for what it takes to make its handle ready for "
        "operations, the socket itself not counted."
    ),
    cases=CASES,
    subjects=subjects.MEMORY,
    metrics=(
        Metric("operation", "operation, bytes", 1, 0),
        Metric("handle", "handle, bytes", 1, 0),
    ),
    references=(subjects.ASYNCIO_SOCK, "asyncio, sleep"),
    measure=_measure,
)
