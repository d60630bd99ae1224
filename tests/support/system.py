"""Which system this is, and what Wine, where it stands in for Windows, cannot do."""

from __future__ import annotations

import ctypes
import sys

WINDOWS = sys.platform == "win32"


def _is_wine() -> bool:
    if sys.platform != "win32":
        return False
    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


WINE = _is_wine()
"""Windows as Wine implements it: its own bugs and omissions are not portio's."""

LOCAL = "inet" if WINDOWS else "unix"
"""The family of the fastest and roomiest stream on this machine (see support.net)."""
