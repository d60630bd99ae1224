"""TCP echo over the loopback interface: what a message costs the server."""

from __future__ import annotations

from benchmarks import subjects
from benchmarks.model import Case, Context, Metric, Subject, Work
from benchmarks.programs import Program, Sample, assign_processors, run, serving

LOAD = Program("echo_load")
SIZES = {64: "64 B", 16384: "16 KiB"}
# Echoes of a full run: short, because the speed of a virtual machine drifts from second to
# second, and only what is measured close together can be compared.
ECHOES = {
    (1, 64): 10_000,
    (50, 64): 30_000,
    (500, 64): 30_000,
    (50, 16384): 15_000,
    (500, 16384): 15_000,
}
METRICS = (
    Metric("cpu", "server CPU, µs", 1e6, 2),
    Metric("rate", "echoes/s", 1, 0),
    Metric("p50", "latency 50 %, µs", 1, 0),
    Metric("p99", "99 %, µs", 1, 0),
)


def _case(connections: int, size: int) -> Case:
    plural = "s" if connections > 1 else ""
    return Case(
        f"{connections}x{SIZES[size].replace(' ', '')}",
        f"{connections} connection{plural}, {SIZES[size]}",
        {"connections": connections, "size": size},
    )


def measure(context: Context, case: Case, subject: Subject) -> Sample:
    """Run the server under load; a case that is ``free`` binds nobody to a processor."""
    connections, size = int(case.parameters["connections"]), int(case.parameters["size"])
    echoes = context.count(ECHOES[connections, size], subject)
    warm_up = echoes // 10 + 2 * connections
    bound = "free" not in case.parameters
    ours, theirs = assign_processors(together=connections == 1) if bound else (None, None)
    with serving(subject.program.command(), ours) as server:
        load = LOAD.command(server.port, server.pid, connections, size, warm_up, echoes)
        sample = run(load, theirs)
    return {
        "cpu": sample["cpu"] / echoes,
        "rate": echoes / sample["wall"],
        "p50": sample["p50"],
        "p99": sample["p99"],
    }


WORK = Work(
    name="echo",
    title="TCP echo",
    notes=(
        "Server CPU is the user and system time of the server's process, all threads, for "
        "each echo. The load has a processor for itself, except with one connection, where "
        "server and load share one and take turns."
    ),
    cases=tuple(_case(connections, size) for connections, size in ECHOES),
    subjects=subjects.ECHO,
    metrics=METRICS,
    references=(
        subjects.C_IO_URING,
        subjects.UVLOOP_PROTOCOL,
        subjects.UVLOOP_SOCK,
        subjects.TRIO,
    ),
    measure=measure,
)
