"""Waiting for a condition, never for a time, and failing loudly when it does not come.

No limit here is a measurement: each is far beyond what a slow and busy machine
needs, and is reached only when something is lost.
"""

from __future__ import annotations

import faulthandler
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

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
    pytest.fail(f"{message}\n\nThreads:\n{thread_dump()}", pytrace=True)


def eventually(condition: Callable[[], object], what: str, limit: float = LIMIT) -> None:
    """Wait until `condition` holds; fail with a thread dump when it never does."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            fail_with_dump(f"not within {limit:g} s: {what}")
        time.sleep(0.001)


def wait_until_blocked(*threads: threading.Thread, process: int | None = None) -> None:
    """Wait until each thread sleeps in the kernel, and not only for the GIL.

    A thread that waits for the GIL wakes every few milliseconds to ask for it,
    and gets it while we sleep; so a thread that sleeps through three samples
    without one change of context is blocked in the call we know it to be in.
    """
    for thread in threads:
        eventually(lambda thread=thread: thread.native_id is not None, f"{thread.name} started")
        assert thread.native_id is not None
        wait_until_task_blocked(process or "self", thread.native_id, thread.is_alive)


def wait_until_task_blocked(
    process: int | str, task: int, alive: Callable[[], bool] = lambda: True
) -> None:
    """wait_until_blocked for a thread known by its number, also of another process."""
    folder = Path(f"/proc/{process}/task/{task}")
    deadline = time.monotonic() + LIMIT
    quiet, switches = 0, None
    while quiet < 3:
        if not alive():
            pytest.fail(f"thread {task} ended instead of waiting")
        if time.monotonic() > deadline:
            fail_with_dump(f"thread {task} did not block within {LIMIT:g} s")
        try:
            state, now = _state(folder)
        except (FileNotFoundError, ProcessLookupError):
            pytest.fail(f"thread {task} ended instead of waiting")
        quiet = quiet + 1 if state == "S" and now == switches else 0
        switches = now
        time.sleep(0.007)


def _state(folder: Path) -> tuple[str, tuple[int, int]]:
    """A thread's state and how often it has left the processor, freely and not."""
    fields = {}
    for line in (folder / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.split()
    return fields["State"][0], (
        int(fields["voluntary_ctxt_switches"][0]),
        int(fields["nonvoluntary_ctxt_switches"][0]),
    )


def processor_seconds(function: Callable[[], object]) -> float:
    """How much processor time this process spends while `function` runs."""
    before = time.process_time()
    function()
    return time.process_time() - before
