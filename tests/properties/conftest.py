"""Every machine runs on each backend, on shared and on thread-bound ports."""

from __future__ import annotations

import pytest

import portio


@pytest.fixture(params=[False, True], ids=["shared", "thread-bound"])
def thread_bound(request: pytest.FixtureRequest, backend: str) -> bool:
    """The kind of port; what a process opens with its first port is open afterwards."""
    bound: bool = request.param
    with portio.Port(backend=backend, thread_bound=bound):
        pass
    return bound
