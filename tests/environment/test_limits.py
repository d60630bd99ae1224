"""Limits of the system: what they forbid is an error in its place, and nothing is lost (O14)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .running import run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits of Linux")
kinds = pytest.mark.parametrize("kind", ["shared", "thread_bound"])


@kinds
@pytest.mark.parametrize("function", ["accepts", "ports", "first_port", "many_ports", "no_threads"])
def test_process(backend: str, kind: str, function: str) -> None:
    """Descriptors, threads, and the memory of many ports."""
    result = run("limits", function, backend, kind, PORTIO_BACKEND="")
    assert result.lines == ["done"]
    assert not result.errors


@kinds
@pytest.mark.parametrize("limit", [0, 64 << 10, 256 << 10])
def test_locked_memory(backend: str, kind: str, limit: int) -> None:
    """Memory that may be locked: none, as little as many containers allow, a little more."""
    result = run("limits", "locked_memory", backend, kind, limit, PORTIO_BACKEND="")
    assert result.lines == ["done"]
    assert not result.errors


@kinds
@pytest.mark.parametrize("function", ["full_disk", "too_large", "full_device", "read_only_disk"])
def test_disk(backend: str, kind: str, function: str, tmp_path: Path) -> None:
    """No room, and no right to write."""
    result = run("limits", function, backend, kind, tmp_path)
    assert result.lines == ["done"]
    assert not result.errors
