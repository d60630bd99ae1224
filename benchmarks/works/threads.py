"""TCP echo by several threads on one port: what more of them bring, or cost."""

from __future__ import annotations

from benchmarks import subjects
from benchmarks.model import Case, Metric, Work
from benchmarks.works import echo

WORK = Work(
    name="threads",
    title="TCP echo by several threads",
    notes=(
        "A shared port whose threads take turns. Nobody is bound to a processor, so the threads "
        "may get in each other's way as they would in a program, and in that of the load. With "
        "the interpreter's lock, one thread at a time runs Python."
    ),
    cases=(Case("50x64B", "50 connections, 64 B", {"connections": 50, "size": 64, "free": 1}),),
    subjects=subjects.THREADS,
    metrics=(Metric("rate", "echoes/s", 1, 0), *echo.METRICS[:1], *echo.METRICS[2:]),
    references=tuple(
        subjects.portio_name(backend, subjects.WORKERS[1]) for backend in subjects.BACKENDS
    ),
    measure=echo.measure,
)
