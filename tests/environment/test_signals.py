"""Ctrl-C and other signals: heard at once, and nothing is lost (P8)."""

from __future__ import annotations

import signal
import time

import pytest

from support.children import Child
from support.marks import needs_posix_signals

from .running import run, talk_to

# The contract says 100 ms; this only has to be shorter than any other way out.
AT_ONCE = 10.0
kinds = pytest.mark.parametrize("kind", ["shared", "thread_bound"])


def interrupt(child: Child) -> None:
    """Interrupt a child that waits; it must say soon that it was interrupted."""
    begun = time.monotonic()
    child.signal(signal.SIGINT)
    word, moment = child.line().split()
    assert word == "interrupted"
    assert float(moment) - begun < AT_ONCE
    print(f"{(float(moment) - begun) * 1000:.1f} ms")


@kinds
@pytest.mark.parametrize("timeout", [None, 1000.0])
@pytest.mark.parametrize("where", ["get", "get_many", "iteration", "wait"])
def test_interrupt(backend: str, kind: str, where: str, timeout: float | None) -> None:
    """KeyboardInterrupt comes out of every way to wait, three times in a row."""
    with talk_to("signals", "interrupted", where, timeout, backend, kind) as child:
        for _ in range(3):
            child.expect("ready")
            child.wait_until_blocked()
            interrupt(child)
        child.expect("done")
        child.finish()
        assert not child.errors()


@pytest.mark.parametrize("main_first", [True, False], ids=["main-first", "main-last"])
def test_interrupt_with_workers(backend: str, *, main_first: bool) -> None:
    """The main thread is interrupted, whether it looks at the system or sleeps behind others."""
    with talk_to("signals", "pool", main_first, backend) as child:
        child.expect("ready")
        interrupt(child)
        child.expect("done")
        child.finish()
        assert not child.errors()


@needs_posix_signals
@kinds
@pytest.mark.parametrize("where", ["get", "get_many", "wait"])
def test_handlers(backend: str, kind: str, where: str) -> None:
    """A signal whose handler raises nothing leaves the wait as long as it was."""
    assert run("signals", "handled", where, backend, kind).lines == ["done"]


@needs_posix_signals
@kinds
def test_handler_posts(backend: str, kind: str) -> None:
    """A packet that a handler posts ends the wait that it has interrupted."""
    assert run("signals", "handler_uses_the_port", backend, kind).lines == ["done"]
