"""Forked children: an inherited port raises, a new one works, and the parent goes on (P10)."""

from __future__ import annotations

import pytest

from support.marks import needs_fork

from .running import run

pytestmark = needs_fork
kinds = pytest.mark.parametrize("kind", ["shared", "thread_bound"])
# Python itself warns of forks in programs with threads; ResourceWarnings must not come.
WARNINGS = "default,ignore::DeprecationWarning"


def run_quietly(*arguments: object) -> None:
    """The program succeeds, and nobody has anything to complain about."""
    result = run("forks", *arguments, limit=100, PYTHONWARNINGS=WARNINGS)
    assert result.lines == ["done"]
    assert not result.errors


@kinds
def test_every_use_raises(backend: str, kind: str) -> None:
    """Each method of an inherited port, key and operation."""
    run_quietly("every_use", backend, kind)


@kinds
def test_dropped_in_the_child(backend: str, kind: str) -> None:
    """Collecting the inherited port frees nothing that the parent owns."""
    run_quietly("dropped_in_child", backend, kind)


@kinds
def test_unwinding(backend: str, kind: str) -> None:
    """The end of an inherited `with` block."""
    run_quietly("unwinding", backend, kind)


def test_while_another_thread_waits(backend: str) -> None:
    """The waiting thread does not exist in the child, where nothing waits for it."""
    run_quietly("while_another_waits", backend)


def test_busy_parent(backend: str) -> None:
    """A fork at any moment leaves no lock behind."""
    run_quietly("busy_parent", backend)


def test_probing_parent(backend: str) -> None:
    """Nor does one while other threads make their ports."""
    run_quietly("probing_parent", backend)


@kinds
def test_multiprocessing(backend: str, kind: str) -> None:
    """The fork start method."""
    run_quietly("processes", backend, kind)


@kinds
def test_inheritance(backend: str, kind: str) -> None:
    """Programs that are started inherit nothing."""
    run_quietly("inheritance", backend, kind)
