"""The contract holds on older kernels: io_uring with its features switched off.

Each case runs the tests marked `core` once more, in a process of its own, with
one feature off that the engine makes up for, with all of them off, or with queues of a few entries.
"""

from __future__ import annotations

import pytest

from portio import backends
from support.core import CORE_LIMIT, run_core


def features() -> list[str]:
    """The features that this system has and the switch can take away."""
    status = backends.available().get("io_uring")
    return list(status.features) if status is not None and status.available else []


# How the ring is set up, and hardly anything in the engine: off together with all the others.
SETTINGS = {"submit_all", "single_issuer", "no_iowait"}


def cases() -> list[str]:
    names = features()
    everything = ",".join(f"no-{name}" for name in names)
    return [
        *(f"no-{name}" for name in names if name not in SETTINGS),
        everything or "no features",
        "sq=4,cq=8",
        f"{everything},sq=4,cq=8",
    ]


@pytest.mark.timeout(CORE_LIMIT + 30)
@pytest.mark.parametrize("switch", cases())
def test_o14_the_core_of_the_contract(switch: str) -> None:
    if not features():
        status = backends.available().get("io_uring")
        pytest.skip(f"io_uring is unavailable: {status.reason if status else 'not built'}")
    run_core(PORTIO_IO_URING=switch, PORTIO_TEST_BACKENDS="io_uring")
