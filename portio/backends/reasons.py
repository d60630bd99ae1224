"""Why a backend cannot be used here, in words, and what an operator can do.

A probe answers with the system call that failed and its errno.  That alone does
not help: EPERM from io_uring_setup is a container's seccomp filter on one
machine and a sysctl on the next.  This module looks at what tells them apart.
It only reads /proc, and guesses nothing when that says nothing.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["SYSTEMS", "Reason", "not_built", "probe_failed"]

#: The system that each backend is for, as `sys.platform` begins and as people say.
SYSTEMS = {
    "io_uring": ("linux", "Linux"),
    "epoll": ("linux", "Linux"),
    "iocp": ("win32", "Windows"),
}

_TOP = Path(__file__).parents[2]  # what holds the package: site-packages, or a source tree
_SECCOMP_FILTER = "2"  # proc(5), "Seccomp": 0 off, 1 strict, 2 a filter


class Reason(NamedTuple):
    """Why not, and what to do; each is a sentence without its full stop."""

    reason: str
    advice: str


def not_built(name: str, error: ImportError) -> Reason:
    """For a backend whose extension cannot be imported."""
    platform, system = SYSTEMS[name]
    if not sys.platform.startswith(platform):
        return Reason(
            f"{name} exists on {system} only, and this is {sys.platform}",
            f"use portio on {system}",
        )
    if _is_source_tree():
        return Reason(
            f"this portio is the source tree in {_TOP}, where no extension is built",
            "install it with `pip install -e .`, or start Python elsewhere or with -P to get "
            "the portio that is installed",
        )
    return Reason(
        f"the extension portio.backends._{name} cannot be imported ({error})",
        "install portio again with a wheel for this system, or with a C compiler at hand",
    )


def _is_source_tree() -> bool:
    return (_TOP / "pyproject.toml").exists() and (_TOP / "CMakeLists.txt").exists()


def probe_failed(name: str, call: str, code: int) -> Reason:
    """For a backend that the system refuses: `call` failed with errno `code`."""
    if name == "io_uring" and code == errno.EPERM:
        return _io_uring_forbidden(call)
    if name == "io_uring" and code == errno.ENOSYS:
        return _io_uring_missing(call)
    told = f"{call} failed: {os.strerror(code)}"
    if code == errno.ENOMEM:
        return Reason(told, "raise the limit of locked memory (ulimit -l), or free memory")
    if code in (errno.EMFILE, errno.ENFILE):
        return Reason(told, "raise the limit of open files (ulimit -n)")
    if name == "io_uring" and code in (errno.EINVAL, errno.EOPNOTSUPP):
        return _kernel_too_old(told)
    return Reason(told, "see the manual page of that call, or use another backend")


def _io_uring_forbidden(call: str) -> Reason:
    switch = _read("/proc/sys/kernel/io_uring_disabled")
    if switch in ("1", "2"):
        return Reason(
            f"{call} is forbidden: the sysctl kernel.io_uring_disabled is {switch}",
            "set it to 0 (sysctl -w kernel.io_uring_disabled=0)",
        )
    if _filtered():
        return _blocked_by_seccomp(call)
    return Reason(
        f"{call} is forbidden: {os.strerror(errno.EPERM)}",
        "look for a security module or a filter that blocks io_uring",
    )


def _io_uring_missing(call: str) -> Reason:
    if _kernel() >= (5, 1) and _filtered():
        return _blocked_by_seccomp(call)
    return _kernel_too_old(f"the kernel has no {call}")


def _blocked_by_seccomp(call: str) -> Reason:
    return Reason(
        f"{call} is blocked by a seccomp filter, as container runtimes do by default",
        "run with a seccomp profile that allows io_uring_setup, io_uring_enter and "
        "io_uring_register",
    )


def _kernel_too_old(told: str) -> Reason:
    release = os.uname().release if hasattr(os, "uname") else "unknown"
    return Reason(
        f"{told} (kernel {release})",
        "use Linux 5.15 or newer, built with CONFIG_IO_URING",
    )


def _filtered() -> bool:
    """Whether a seccomp filter is on this process."""
    for line in _read("/proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name == "Seccomp":
            return value.strip() == _SECCOMP_FILTER
    return False


def _kernel() -> tuple[int, int]:
    """The kernel's version; (0, 0) when it cannot be told."""
    major, _, rest = os.uname().release.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
