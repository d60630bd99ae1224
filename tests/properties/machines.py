"""What all state machines here have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

import portio
from support.system import WINE

from .ledger import Descriptors, Ledger, Submission

T = TypeVar("T")


@dataclass(frozen=True)
class Shape:
    """The sizes of an operation's buffers."""

    sizes: tuple[int, ...]
    single: bool = False  # one buffer instead of a sequence

    def argument(self, parts: Sequence[T]) -> T | Sequence[T]:
        """What the operation is given of these buffers."""
        return parts[0] if self.single else parts

    def __repr__(self) -> str:
        if len(self.sizes) > 4:
            return f"Shape(({self.sizes[0]},) * {len(self.sizes)})"
        return f"Shape({self.sizes}{', single=True' if self.single else ''})"


SIZES = st.one_of(st.integers(0, 64), st.sampled_from([1000, 4096, 70_000, 250_000]))
# One buffer, a few, and more than the system takes in one call (IOV_MAX).
SHAPES = st.one_of(
    SIZES.map(lambda size: Shape((size,), single=True)),
    st.lists(SIZES, min_size=1, max_size=4).map(lambda sizes: Shape(tuple(sizes))),
    st.just((2,) * 1100).map(Shape),
)

ON_CI = bool(os.environ.get("CI"))
# Making a failure smaller may take minutes, longer than a test may.  So it is
# done on demand, by a run with PORTIO_TEST_SHRINK=1 (and `-p no:timeout`).
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
if os.environ.get("PORTIO_TEST_SHRINK"):
    PHASES.append(Phase.shrink)


def walk(machine: Callable[[], RuleBasedStateMachine], *, examples: int, steps: int) -> None:
    """Run a machine along random paths; the same paths each time on CI."""
    default = settings.default
    assert default
    run_state_machine_as_test(
        cast("type[RuleBasedStateMachine]", machine),
        settings=settings(
            # Under Wine each call of the system is a message to a server.
            max_examples=examples // 4 if WINE else examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=ON_CI,
            database=None if ON_CI else default.database,
            print_blob=True,
            phases=PHASES,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


# How io_uring may have to do its work: with all that this kernel has, with full
# queues, and as on older kernels.
SWITCHES = st.sampled_from(
    [
        "",
        "sq=4,cq=8",
        "no-defer_taskrun",
        "no-defer_taskrun,no-single_issuer,no-coop_taskrun,no-submit_all,sq=4,cq=8",
    ]
)


class PortMachine(RuleBasedStateMachine):
    """Two ports, a ledger, and the proof at the end that nothing is left."""

    def __init__(self, backend: str, thread_bound: bool) -> None:
        super().__init__()
        self.backend = backend
        self.thread_bound = thread_bound
        self.descriptors = Descriptors()
        self.ledger = Ledger()
        self.submissions: list[Submission] = []
        self.ports: list[portio.Port] = []

    def open_ports(self, switches: str) -> None:
        """Open the ports; every machine does so before anything else."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PORTIO_IO_URING", switches)
            for _ in range(2):
                port = portio.Port(backend=self.backend, thread_bound=self.thread_bound)
                self.ports.append(port)

    def submit(self, port: portio.Port, *submissions: Submission) -> None:
        """Submit, and remember until the end."""
        self.ledger.submit(port, *submissions)
        self.submissions += submissions

    def cancel_all(self) -> None:
        """Ask for the end of everything that is pending."""
        for submission in list(self.ledger.pending.values()):
            submission.excused = True
            submission.operation.cancel()

    def settle(self) -> None:
        """Bring every submission to its end; a machine knows how."""
        self.ledger.settle(self.ports)

    def release(self) -> None:
        """Close what the machine has opened besides the ports."""

    def teardown(self) -> None:
        """Whatever happened before, nothing may be left."""
        try:
            self.settle()
            if self.ledger.settled:
                assert not any(port._pending for port in self.ports)
        finally:
            for port in self.ports:
                port.close()
                assert not port._pending
            self.release()
        self.ledger.forget(self.submissions)
        self.descriptors.check()
