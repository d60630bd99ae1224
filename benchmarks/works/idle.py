"""Many connections of which one is in use: what the others cost."""

from __future__ import annotations

import resource

from benchmarks import subjects
from benchmarks.model import Case, Context, Metric, Subject, Work
from benchmarks.programs import Program, Sample, UnavailableError, assign_processors, run, serving

LOAD = Program("idle_load")
CASES = (Case("10000", "10,000 connections", {"connections": 10_000, "few": 100, "echoes": 3_000}),)
OTHERS = 100  # descriptors that a program needs beside its connections


def _measure(context: Context, case: Case, subject: Subject) -> Sample:
    few, many = int(case.parameters["few"]), int(case.parameters["connections"])
    if context.quick:
        many = 500
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < many + OTHERS:
        raise UnavailableError(f"a process may have {limit} descriptors only (ulimit -n)")
    echoes = context.count(float(case.parameters["echoes"]), subject)
    ours, theirs = assign_processors(together=True)
    with serving(subject.program.command(), ours) as server:
        sample = run(LOAD.command(server.port, server.pid, few, many, echoes), theirs)
    return {
        "memory": sample["memory"] - subject.buffer,
        "cpu": sample["many"] / echoes,
        "cpu_few": sample["few"] / echoes,
    }


WORK = Work(
    name="idle",
    title="Idle connections",
    notes=(
        "Every connection waits for data. Memory is by how much the server's resident memory has "
        "grown for each, from 100 to 10,000, without the buffer to receive into where each has "
        f"its own ({subjects.SMALL} bytes then); the system's own memory is not counted. CPU is "
        "the server's for each echo of 64 B on one of the connections, while the others do "
        "nothing."
    ),
    cases=CASES,
    subjects=subjects.CONNECTIONS,
    metrics=(
        Metric("memory", "memory, bytes", 1, 0),
        Metric("cpu", "CPU of an echo, µs", 1e6, 2),
        Metric("cpu_few", "with 100, µs", 1e6, 2),
    ),
    references=(subjects.UVLOOP_PROTOCOL,),
    measure=_measure,
)
