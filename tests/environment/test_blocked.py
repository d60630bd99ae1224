"""io_uring blocked by seccomp: epoll steps in, and portio says why and what to do."""

from __future__ import annotations

import json

import pytest

from portio import backends

from .running import run

STATUS = backends.available()["io_uring"]
pytestmark = pytest.mark.skipif(
    not STATUS.available, reason=f"io_uring cannot be used here: {STATUS.reason}"
)
ALL = "setup,enter,register"
errors = pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])


@errors
@pytest.mark.parametrize("calls", [ALL, "setup", "enter", "register"])
def test_falls_back(error: str, calls: str) -> None:
    """Whichever call is blocked, a port works, and io_uring is explained away."""
    found = json.loads(run("blocked", "choice", error, calls, PORTIO_BACKEND="").lines[-1])
    assert found["available"] is False
    assert found["default"] == "epoll"
    assert found["backend"] == "epoll"
    assert found["result"] == "works"
    assert "seccomp" in found["reason"]
    assert found["advice"]
    for explicit in (found["explicit"], found["explicit_bound"]):
        assert found["reason"] in explicit


@errors
def test_asked_for_by_environment(error: str) -> None:
    """What was asked for and cannot be had is an error, not another backend."""
    (line,) = run("blocked", "environment_choice", error, ALL, PORTIO_BACKEND="io_uring").lines
    assert "io_uring" in line
    assert "seccomp" in line


@errors
def test_information(error: str) -> None:
    """`python -m portio info` says it."""
    text = "\n".join(run("blocked", "information", error, ALL, PORTIO_BACKEND="").lines)
    assert "seccomp" in text
