"""Which system this is, and what Wine, where it stands in for Windows, cannot do."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["HAS_FULL", "LOCAL", "WINDOWS", "WINE", "get_affinity", "set_affinity"]

WINDOWS = sys.platform == "win32"


def _is_wine() -> bool:
    if sys.platform != "win32":
        return False
    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


WINE = _is_wine()
"""Windows as Wine implements it: its own bugs and omissions are not portio's."""

HAS_FULL = not WINDOWS and os.path.exists("/dev/full")
"""A file on which there is never room; Wine shows it, too, but it is none of Windows'."""

LOCAL = "inet" if WINDOWS else "unix"
"""The family of the fastest and roomiest stream on this machine (see support.net)."""

if sys.platform == "win32":
    from support.win32 import get_affinity, set_affinity
else:

    def get_affinity() -> set[int]:
        """The processors that this process may use."""
        return os.sched_getaffinity(0)

    def set_affinity(processors: set[int]) -> None:
        os.sched_setaffinity(0, processors)
