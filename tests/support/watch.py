"""Waiting for a condition, never for a time, and failing loudly when it does not come.

No limit here is a measurement: each is far beyond what a slow and busy machine
needs, and is reached only when something is lost.
"""

from __future__ import annotations

import faulthandler
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from support.system import WINDOWS

LIMIT = 30.0
"""Seconds after which a delivery, a wake-up or a peer counts as lost."""

HANG_LIMIT = 150.0
"""Seconds after which a test that not even pytest-timeout could stop ends the process."""


def thread_dump() -> str:
    """The Python stack of every thread of this process."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


def fail_with_dump(message: str) -> NoReturn:
    """Fail the test, and show where every thread is."""
    import pytest  # not where a child of a test, which starts slowly enough, needs no more

    pytest.fail(f"{message}\n\nThreads:\n{thread_dump()}", pytrace=True)


def eventually(condition: Callable[[], object], what: str, limit: float = LIMIT) -> None:
    """Wait until `condition` holds; fail with a thread dump when it never does."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            fail_with_dump(f"not within {limit:g} s: {what}")
        time.sleep(0.001)


def wait_until_blocked(*threads: threading.Thread) -> None:
    """Wait until each thread sleeps in the kernel, and not only for the GIL.

    A thread that waits for the GIL wakes every few milliseconds to ask for it,
    and gets it while we sleep; so a thread that sleeps through three samples
    without one change of context is blocked in the call we know it to be in.
    """
    for thread in threads:
        eventually(lambda thread=thread: thread.native_id is not None, f"{thread.name} started")
        assert thread.native_id is not None
        sample = _sample_here(thread) if WINDOWS else _sample_of("self", thread.native_id)
        _wait_until_still(sample, thread.name)


def wait_until_task_blocked(process: int | str, task: int) -> None:
    """wait_until_blocked for a thread of another process, by its number (on Linux)."""
    _wait_until_still(_sample_of(process, task), f"thread {task}")


def _wait_until_still(sample: Callable[[], object], name: str) -> None:
    """Wait until three samples in a row are the same, and say that the thread sleeps."""
    deadline = time.monotonic() + LIMIT
    quiet, before = 0, None
    while quiet < 3:
        if time.monotonic() > deadline:
            fail_with_dump(f"{name} did not block within {LIMIT:g} s")
        try:
            now = sample()
        except (FileNotFoundError, ProcessLookupError):
            fail_with_dump(f"{name} ended instead of waiting")
        quiet = quiet + 1 if now is not None and now == before else 0
        before = now
        time.sleep(0.007)


def _sample_of(process: int | str, task: int) -> Callable[[], object]:
    """What Linux knows of a thread: how often it has left the processor, while it sleeps."""
    status = Path(f"/proc/{process}/task/{task}/status")

    def sample() -> object:
        fields = {}
        for line in status.read_text().splitlines():
            name, _, value = line.partition(":")
            fields[name] = value.split()
        if fields["State"][0] != "S":
            return None
        # Freely, and not.
        return fields["voluntary_ctxt_switches"], fields["nonvoluntary_ctxt_switches"]

    return sample


def _sample_here(thread: threading.Thread) -> Callable[[], object]:
    """Where a thread of this process is in its Python code, and its processor time.

    Windows tells no more in a way that is documented.  A thread that stays at one
    instruction while we sleep and nobody else needs the GIL is in a call that sleeps.
    """
    from support import win32

    def sample() -> object:
        if not thread.is_alive():
            raise ProcessLookupError
        frame = sys._current_frames().get(thread.ident or 0)
        if frame is None:
            return None
        return id(frame), frame.f_lasti, win32.processor_time(thread.native_id or 0)

    return sample


def processor_seconds(function: Callable[[], object]) -> float:
    """How much processor time this process spends while `function` runs."""
    before = time.process_time()
    function()
    return time.process_time() - before
