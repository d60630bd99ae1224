"""Files and pipes for completion I/O.

Windows asks for it: a handle that serves a completion port must have been opened
for overlapped I/O, which Python's own `open` and `os.pipe` do not do.  So portio
opens them itself, and a program that uses `portio.open` and `portio.pipe` runs
on every backend.

A `Handle` owns its descriptor and closes it once.  While it belongs to a port,
closing it is closing its key, so that pending operations are cancelled and
complete; `CompletionKey.close` takes the descriptor away by `surrender`.
"""

from __future__ import annotations

import errno
import os
import warnings
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

from portio import accelerator, system
from portio.errors import NotSupportedError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from portio.keys import CompletionKey

__all__ = ["File", "Handle", "PipeEnd", "open", "pipe"]

_MODES = ("r", "r+", "w", "w+", "x", "x+")


class Handle(accelerator.HandleFields):
    """A descriptor that portio has opened: what `File` and `PipeEnd` share."""

    __slots__ = ("__weakref__", "_key", "_mode", "_name")

    def __init__(self, descriptor: int, name: Any, mode: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._mode = mode
        self._key: weakref.ref[CompletionKey] | None = None

    @property
    def name(self) -> Any:
        """What it was opened by: the path as it was given, or the pipe's descriptor."""
        return self._name

    @property
    def mode(self) -> str:
        """How it was opened, without the letter b."""
        return self._mode

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._descriptor < 0

    def fileno(self) -> int:
        """The descriptor, on Windows the HANDLE; ValueError when it is closed."""
        if self._descriptor < 0:
            raise ValueError(f"{self!r} is closed")
        return self._descriptor

    def close(self) -> None:
        """Closes it; closing again does nothing.

        While it belongs to a port this closes its key: see `CompletionKey.close`.
        In a forked child it closes the child's descriptor only.
        """
        key = self._key() if self._key is not None else None
        if key is not None and key.handle is self and not key.inherited:
            key.close()
        elif self._descriptor >= 0:
            self.close_descriptor(self.surrender())

    def surrender(self) -> int:
        """Gives the descriptor away, open: from now on this object is closed."""
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    @staticmethod
    def close_descriptor(descriptor: int) -> None:
        """Closes a descriptor of this kind."""
        system.close(descriptor)

    def attach(self, key: CompletionKey) -> None:
        """A port has made `key` for this handle."""
        self._key = weakref.ref(key)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be copied: the descriptor is its own")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close_descriptor(self.surrender())

    def __repr__(self) -> str:
        state = "closed" if self._descriptor < 0 else f"descriptor={self._descriptor}"
        return f"<portio.{type(self).__name__} {self._name!r} mode={self._mode!r} {state}>"


accelerator.install(Handle, "fileno")


class File(Handle):
    """A file opened by `portio.open`.  `Read` and `Write` name the offset each time."""

    __slots__ = ("_direct",)

    def __init__(self, descriptor: int, name: Any, mode: str, *, direct: bool = False) -> None:
        super().__init__(descriptor, name, mode)
        self._direct = direct

    @property
    def direct(self) -> bool:
        """Whether it was opened with ``direct=True``."""
        return self._direct

    def size(self) -> int:
        """The size of the file (or the block device) in bytes; asks the system."""
        return system.file_size(self.fileno())

    def truncate(self, size: int) -> None:
        """Makes the file `size` bytes long, with zeros where it grows."""
        if size < 0:
            raise ValueError(f"size must not be negative: {size}")
        system.truncate(self.fileno(), size)


class PipeEnd(Handle):
    """One end of a pipe made by `portio.pipe`."""

    __slots__ = ()


def open(  # noqa: A001 (portio.open)
    path: str | bytes | os.PathLike[Any],
    mode: str = "r",
    *,
    permissions: int = 0o666,
    direct: bool = False,
) -> File:
    """Opens a file for completion I/O.

    `mode` is ``r``, ``r+``, ``w``, ``w+``, ``x`` or ``x+``, with the meaning that
    they have for the built-in `open`; files are binary always, and the letter
    ``b`` may be there.  There is no append mode: operations name their offset.
    `permissions` are those of a new file, before the umask; on Windows a file
    without any right to write is made read-only, and others may read, write, rename
    and delete the file while it is open, as elsewhere.  The descriptor is not
    inheritable.

    With ``direct=True`` the bytes go between the device and the buffer, past the system's
    cache (O_DIRECT of open(2); FILE_FLAG_NO_BUFFERING of CreateFileW).  Then the address of
    a buffer, its length and the offset must be multiples of the device's block, for which
    4096 is enough as a rule, or the operation fails with EINVAL; some file systems are less
    strict.  ``mmap.mmap(-1, size)`` is such a buffer.  A read at the end of the file is short
    as always.  `SendFile` is for files that are not direct.

    Raises ValueError for another mode, and the OSError that the system gives
    (FileNotFoundError, IsADirectoryError, …; EINVAL where the file system has no direct
    I/O, which may have made a new file by then); `NotSupportedError` where the system has
    none.
    """
    if not isinstance(mode, str):
        raise TypeError(f"mode must be a str, not {type(mode).__name__!r}")
    short = mode.replace("b", "", 1)
    if short not in _MODES:
        hint = "; operations name their offset, so there is no append" if "a" in mode else ""
        raise ValueError(f"mode must be one of {', '.join(_MODES)}, not {mode!r}{hint}")
    if direct and not system.HAS_DIRECT:
        raise NotSupportedError(errno.ENOTSUP, "this system cannot pass by its cache")
    descriptor = system.open_file(path, short, permissions, direct=direct)
    return File(descriptor, path, short, direct=direct)


def pipe() -> tuple[PipeEnd, PipeEnd]:
    """A new pipe for completion I/O: its reading and its writing end.

    Neither is inheritable.  Raises the OSError that the system gives.
    """
    reader, writer = system.open_pipe()
    return PipeEnd(reader, reader, "r"), PipeEnd(writer, writer, "w")
