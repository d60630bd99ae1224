"""Which system this is, and what Wine, where it stands in for Windows, cannot do."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["LOCAL", "WINDOWS", "WINE", "get_affinity", "set_affinity"]

WINDOWS = sys.platform == "win32"


def _is_wine() -> bool:
    if sys.platform != "win32":
        return False
    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


WINE = _is_wine()
"""Windows as Wine implements it: its own bugs and omissions are not portio's."""

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
