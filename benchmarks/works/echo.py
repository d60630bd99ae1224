"""TCP echo over the loopback interface: what a message costs the server."""

from __future__ import annotations

import contextlib
import os

from benchmarks import subjects
from benchmarks.model import Case, Context, Goal, Metric, Subject, Work
from benchmarks.programs import Program, Sample, on_processors, run, serving

LOAD = Program("echo_load")
SIZES = {64: "64 B", 16384: "16 KiB"}
# Echoes of a full run: short, because the speed of a virtual machine drifts from second to
# second, and only what is measured close together can be compared.
ECHOES = {(1, 64): 10_000, (50, 64): 30_000, (500, 64): 30_000}
ECHOES |= {(1, 16384): 8_000, (50, 16384): 15_000, (500, 16384): 15_000}


def _case(connections: int, size: int) -> Case:
    plural = "s" if connections > 1 else ""
    return Case(
        f"{connections}x{SIZES[size].replace(' ', '')}",
        f"{connections} connection{plural}, {SIZES[size]}",
        {"connections": connections, "size": size},
    )


def _measure(context: Context, case: Case, subject: Subject) -> Sample:
    connections, size = int(case.parameters["connections"]), int(case.parameters["size"])
    echoes = context.count(ECHOES[connections, size], subject)
    warm_up = echoes // 10 + 2 * connections
    ours, theirs = _processors(connections)
    with contextlib.ExitStack() as stack:
        with on_processors(ours):
            server = stack.enter_context(serving(subject.program.command()))
        with on_processors(theirs):
            load = LOAD.command(server.port, server.pid, connections, size, warm_up, echoes)
            sample = run(load)
    return {
        "cpu": sample["cpu"] / echoes,
        "rate": echoes / sample["wall"],
        "p50": sample["p50"],
        "p99": sample["p99"],
    }


def _processors(connections: int) -> tuple[set[int], set[int]]:
    """Give the processors of the server, and those of the load.

    The load has one for itself, so that the server is measured as it works under load.  But
    with one connection the two take turns, and on two processors each turn would begin with
    waking an idle one, which on a virtual machine costs ten times the echo.
    """
    usable = sorted(os.sched_getaffinity(0))
    load = {usable[-1]}
    return (load if connections == 1 or len(usable) == 1 else set(usable) - load), load


def _goals() -> list[Goal]:
    goals = []
    for case in ("50x64B", "500x64B"):
        for backend, limit in (("io_uring", 1.5), ("epoll", 1.6)):
            for kind in subjects.THREAD_BOUND:
                name = subjects.portio_name(backend, kind)
                goals.append(Goal(case, name, limit, subjects.UVLOOP_PROTOCOL))
                goals.append(Goal(case, name, 0.6, subjects.UVLOOP_SOCK))
    for backend in subjects.BACKENDS:
        name = subjects.PORTIO_TRIO.format(backend)
        goals.append(Goal("50x64B", name, 0.9, subjects.TRIO))
    return goals


WORK = Work(
    name="echo",
    title="TCP echo",
    notes=(
        "Server CPU is the user and system time of the server's process, all threads, for "
        "each echo. The load has a processor for itself, except with one connection, where "
        "server and load share one and take turns."
    ),
    cases=tuple(_case(connections, size) for size in SIZES for connections in (1, 50, 500)),
    subjects=subjects.ECHO,
    metrics=(
        Metric("cpu", "server CPU, µs", 1e6, 2),
        Metric("rate", "echoes/s", 1, 0),
        Metric("p50", "latency 50 %, µs", 1, 0),
        Metric("p99", "99 %, µs", 1, 0),
    ),
    references=(
        subjects.C_IO_URING,
        subjects.UVLOOP_PROTOCOL,
        subjects.UVLOOP_SOCK,
        subjects.TRIO,
    ),
    measure=_measure,
    goals=tuple(_goals()),
)
