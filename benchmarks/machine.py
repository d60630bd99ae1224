"""The machine: what it is, and how busy others kept it during a measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.programs import COMPILER

DISTRIBUTIONS = ["completion-port", "cffi", "uvloop", "caio", "trio"]


def describe() -> dict[str, str]:
    """Describe the machine, the system and the versions, for the JSON file."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "processors": str(os.cpu_count()),
        "processors usable": str(len(os.sched_getaffinity(0))),
        "kernel": f"{platform.system()} {platform.release()}",
        "C library": " ".join(platform.libc_ver()),
        "compiler": _compiler(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: version for name in DISTRIBUTIONS if (version := _version(name))},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _compiler() -> str:
    command = [COMPILER, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


class Disturbance:
    """How much of the machine's processor time others use from now on.

    The children have to be waited for before ``share`` is asked.
    """

    def __init__(self) -> None:
        self._wall = time.monotonic()
        self._others = _busy() - _own()

    def share(self) -> float:
        """Give the share, of all processors, from 0 to 1."""
        capacity = (time.monotonic() - self._wall) * (os.cpu_count() or 1)
        others = _busy() - _own() - self._others
        return min(1.0, max(0.0, others / capacity))


def _busy() -> float:
    """Give the seconds that all processors have been busy, stolen time included."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
