"""``python -m portio info``"""

from __future__ import annotations

import errno
import json
import os
import subprocess

import pytest

import portio.backends
from cli.command import PORTIO, run
from portio import accelerator
from support.children import environment
from support.system import WINDOWS


def test_tells_every_backend_and_its_state() -> None:
    result = run("info", PORTIO_BACKEND="")
    assert result.status == 0
    assert result.errors == ""
    for name, status in portio.backends.available().items():
        (line,) = [line for line in result.output.splitlines() if line.startswith(f"{name} ")]
        if status.available:
            assert " available" in line
        else:
            assert f"not available: {status.reason}" in line
            assert status.reason
    assert f"{portio.backends.default()} " in result.output
    assert result.output.count("the default") == 1


def test_json_has_the_same_facts() -> None:
    result = run("info", "--json", PORTIO_BACKEND="")
    facts = json.loads(result.output)
    assert facts["default"] == portio.backends.default()
    for name, status in portio.backends.available().items():
        shown = facts["backends"][name]
        assert shown["available"] is status.available
        assert shown["features"] == list(status.features)
        assert (shown["reason"] is None) is status.available


@pytest.mark.parametrize("switch", ["0", ""])
def test_tells_whether_the_hot_path_is_in_c(switch: str) -> None:
    facts = json.loads(run("info", "--json", PORTIO_ACCELERATOR=switch).output)
    told = run("info", PORTIO_ACCELERATOR=switch)
    assert facts["accelerated"] is (switch != "0" and accelerator.ACCELERATED)
    assert ("is in Python" in told.output) is not facts["accelerated"]


def test_default_follows_the_environment(backend: str) -> None:
    facts = json.loads(run("info", "--json", PORTIO_BACKEND=backend).output)
    assert facts["default"] == backend


def test_shows_what_is_wrong_with_the_environment() -> None:
    result = run("info", PORTIO_BACKEND="carrier-pigeon")
    assert result.status == 0
    assert "no default: " in result.output
    assert "carrier-pigeon" in result.output


def test_reader_that_goes_away_is_one_line() -> None:
    process = subprocess.Popen(
        [*PORTIO, "info"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()  # long before the interpreter has started
    process.stdout = None
    _, errors = process.communicate()
    if WINDOWS:  # whose C library calls it an invalid argument
        assert process.returncode == 1
        assert errors == f"portio info: {os.strerror(errno.EINVAL)}\n"
        return
    assert process.returncode == 128 + 13
    assert errors == ""


@pytest.mark.skipif(WINDOWS, reason="Windows has no device that is always full")
def test_full_device_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PORTIO, "info"],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "portio info: No space left on device\n"


def test_no_command_is_a_usage_error() -> None:
    result = run()
    assert result.status == 2
    assert result.errors.startswith("usage: ")


def test_help_describes_each_command() -> None:
    for command in ("info", "copy", "echo"):
        assert command in run("--help").output
        assert "usage: " in run(command, "--help").output
