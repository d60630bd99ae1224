# SPDX-License-Identifier: MIT
"""Make trio start under Wine, in the test environment alone.

Wine 8 answers SIO_BASE_HANDLE and its relatives, by which trio asks for the socket
below any layered provider, with WSAEOPNOTSUPP.  There are no layered providers in
Wine: a socket's own handle is the answer.  The import of trio is left to whoever wants
it; this only adds to one of its modules once that has been imported.
"""

from __future__ import annotations

import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

PATCHED = "trio._core._io_windows"


class PatchingLoader(importlib.abc.Loader):
    """Loads the module as its own loader does, then replaces one function."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)

        def get_underlying_socket(sock: object, which: object = None) -> object:
            del which  # of the answers
            handle = sock if isinstance(sock, int) else sock.fileno()  # type: ignore[attr-defined]
            return module.ffi.cast("HANDLE", handle)

        module._get_underlying_socket = get_underlying_socket  # type: ignore[attr-defined]


class PatchingFinder(importlib.abc.MetaPathFinder):
    """Finds that one module where it is, and has it loaded by the loader above."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != PATCHED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = PatchingLoader(spec.loader)
        return spec


if hasattr(ctypes.WinDLL("ntdll"), "wine_get_version"):
    sys.meta_path.insert(0, PatchingFinder())
