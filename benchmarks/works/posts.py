"""Packets from thread to thread: what a post and its get cost."""

from __future__ import annotations

from benchmarks import subjects
from benchmarks.model import Case, Context, Metric, Subject, Work
from benchmarks.programs import Sample, run

CASES = (
    Case("1-to-1", "one thread posts, one gets", {"count": 100_000}),
    Case("4-to-4", "four threads post, four get", {"count": 100_000}),
    Case("round-trip", "two threads, one packet to and fro", {"count": 10_000}),
)


def _measure(context: Context, case: Case, subject: Subject) -> Sample:
    count = max(100, context.count(float(case.parameters["count"]), subject))
    sample = run(subject.program.command(case.name, count))
    return {
        "wall": sample["wall"] / sample["count"],
        "cpu": sample["cpu"] / sample["count"],
        "rate": sample["count"] / sample["wall"],
    }


WORK = Work(
    name="posts",
    title="post and get across threads",
    notes=(
        "Time and CPU (user and system, all threads) for each packet that is posted by one "
        "thread and taken by another; a round trip is two packets."
    ),
    cases=CASES,
    subjects=subjects.POSTS,
    metrics=(
        Metric("wall", "time, µs", 1e6, 2),
        Metric("cpu", "CPU, µs", 1e6, 2),
        Metric("rate", "packets/s", 1, 0),
    ),
    references=(subjects.SIMPLE_QUEUE, subjects.QUEUE),
    measure=_measure,
)
