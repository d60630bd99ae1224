"""Connections that come in a burst: how fast a server takes them in."""

from __future__ import annotations

from benchmarks import subjects
from benchmarks.model import Case, Context, Metric, Subject, Work
from benchmarks.programs import Program, Sample, assign_processors, run, serving

LOAD = Program("accept_load")
CASES = (Case("burst", "500 connections at once", {"burst": 500, "bursts": 12}),)


def _measure(context: Context, case: Case, subject: Subject) -> Sample:
    bursts = context.count(float(case.parameters["bursts"]), subject)
    ours, theirs = assign_processors(together=False)
    with serving(subject.program.command(), ours) as server:
        load = LOAD.command(server.port, server.pid, case.parameters["burst"], bursts)
        sample = run(load, theirs)
    return {
        "rate": sample["count"] / sample["wall"],
        "cpu": sample["cpu"] / sample["count"],
    }


WORK = Work(
    name="accepts",
    title="Accepting connections",
    notes=(
        "The connections are complete, and wait for the server, before the time begins; it ends "
        "when all are accepted and the last has its first echo. CPU is the server's for each "
        "connection, until it waits for data on all of them."
    ),
    cases=CASES,
    subjects=subjects.CONNECTIONS,
    metrics=(Metric("cpu", "server CPU, µs", 1e6, 1), Metric("rate", "accepts/s", 1, 0)),
    references=(subjects.C_EPOLL, subjects.UVLOOP_PROTOCOL),
    measure=_measure,
)
