"""The end of the interpreter, and ports that are forgotten (O3, P7)."""

from __future__ import annotations

import pytest

from .running import run

kinds = pytest.mark.parametrize("kind", ["shared", "thread_bound"])


@kinds
@pytest.mark.parametrize("way", ["pending", "cycle", "at_exit"])
def test_exit_with_pending_operations(backend: str, kind: str, way: str) -> None:
    """The process ends, with success and without a word."""
    result = run("exits", way, backend, kind)
    assert result.lines == ["done"]
    assert not result.errors


@pytest.mark.parametrize("way", ["daemons", "bound_daemon"])
def test_exit_with_waiting_daemons(backend: str, way: str) -> None:
    """Threads that wait for ever keep nobody from ending."""
    for _ in range(5):
        result = run("exits", way, backend)
        assert result.lines == ["done"]
        assert not result.errors


@kinds
def test_forgotten_port(backend: str, kind: str) -> None:
    """A ResourceWarning, also as an error; no descriptor is left, no memory is written to."""
    result = run("exits", "forgotten", backend, kind, PYTHONWARNINGS="error::ResourceWarning")
    assert result.lines == ["done"]
    assert not result.errors


def test_forgotten_files(backend: str) -> None:
    """Files and the ends of pipes warn too."""
    result = run("exits", "forgotten_files", backend, PYTHONWARNINGS="error::ResourceWarning")
    assert result.lines == ["done"]
    assert not result.errors
