"""Ten thousand connections at once, with a receive pending on each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.children import Child
from support.system import WINDOWS, WINE

COUNT = 1000 if WINE else 10_000  # Wine's server has a descriptor for each end too
SPARE = 100  # descriptors for everything else
PROGRAMS = Path(__file__).parent / "programs"
# The aim for C and Python memory together is 2 KiB for each pending operation.
MEMORY = 2048


@pytest.fixture
def _many_descriptors() -> Iterator[None]:
    """Raise our soft limit, which the children inherit, or skip."""
    if WINDOWS:  # which has no limit
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = COUNT + SPARE
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"at most {hard} descriptors (ulimit -Hn), and {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_many_descriptors")
@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_ten_thousand(backend: str, kind: str) -> None:
    """All are connected, all are answered, all are closed; nobody waits for ever."""
    server_source = (PROGRAMS / "server.py").read_text()
    client_source = (PROGRAMS / "client.py").read_text()
    with Child(server_source, backend, kind, COUNT) as server:
        port = server.line(60).removeprefix("port ")
        with Child(client_source, port, COUNT) as client:
            assert client.line(60) == "connected"
            cost = int(server.line(60).removeprefix("pending "))
            print(f"{backend}, {kind}: {cost} bytes for each pending operation")
            client.say("go on")
            assert client.line(60) == "echoed"
            client.say("go on")
            assert client.line(60) == "closed"
            assert server.line(60) == "closed"
            client.finish()
            server.finish()
    assert cost <= MEMORY
