"""Opening files."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import warnings
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from portio import files, posix
from portio.trio.binary import BinaryFile
from portio.trio.decoded import NEWLINES
from portio.trio.ports import TrioPort, current_port
from portio.trio.text import TextFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import OpenBinaryMode, OpenTextMode

__all__ = ["open_file"]

Path: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
Opener: TypeAlias = "Callable[[Any, int], int]"


@overload
async def open_file(
    file: Path | int,
    mode: OpenTextMode = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,  # noqa: FBT001, FBT002
    opener: Opener | None = None,
    *,
    on: TrioPort | None = None,
) -> TextFile: ...


@overload
async def open_file(
    file: Path | int,
    mode: OpenBinaryMode,
    buffering: int = -1,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,  # noqa: FBT001, FBT002
    opener: Opener | None = None,
    *,
    on: TrioPort | None = None,
) -> BinaryFile: ...


@overload
async def open_file(
    file: Path | int,
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,  # noqa: FBT001, FBT002
    opener: Opener | None = None,
    *,
    on: TrioPort | None = None,
) -> TextFile | BinaryFile: ...


@enable_ki_protection
async def open_file(
    file: Path | int,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,  # noqa: FBT001, FBT002 (as open's)
    opener: Opener | None = None,
    *,
    on: TrioPort | None = None,
) -> TextFile | BinaryFile:
    """Opens a file for completion I/O, with the arguments of `trio.open_file`.

    A text mode gives a `TextFile`, a binary one a `BinaryFile`.  `on` is the port to use;
    None: that of the run.  The file is opened in a thread, as trio does it, since that may
    block; reading and writing then need none.

    A descriptor can be given on Linux only, and so can an `opener`.  A descriptor belongs to
    one port at a time, and therefore to one file.  It is the file's to close from the moment
    at which this returns, and with `closefd` False never.

    Raises what `open` raises; OSError (EBUSY) for a descriptor that belongs to a port.
    """
    short, binary = _check_mode(mode)
    if not isinstance(buffering, int):
        raise TypeError(f"buffering must be an int, not {type(buffering).__name__!r}")
    _check_arguments(
        binary=binary, buffering=buffering, encoding=encoding, errors=errors, newline=newline
    )
    if binary and buffering == 1:
        warnings.warn(
            "line buffering (buffering=1) isn't supported in binary mode, the default "
            "buffer size will be used",
            RuntimeWarning,
            stacklevel=2,
        )
    port = current_port() if on is None else on
    if not closefd and not isinstance(file, int):
        raise ValueError("Cannot use closefd=False with file name")
    if isinstance(file, int):
        if sys.platform == "win32":
            raise _unsupported("a descriptor that portio has not opened")
        await checkpoint()
        opened = _adopt(port, file, short, buffering, owns=closefd)
    else:
        handle = await trio.to_thread.run_sync(_open, os.fspath(file), short, opener)
        try:
            opened = BinaryFile(port, handle, mode=short, buffering=buffering)
        except BaseException:
            handle.close()
            raise
    if binary:
        return opened
    try:
        return TextFile(
            opened,
            mode=mode,
            encoding=encoding,
            errors=errors,
            newline=newline,
            line_buffering=buffering == 1 or (buffering < 0 and opened.isatty()),
        )
    except BaseException:
        if closefd:
            port.close_key(opened._key)
        else:
            port.port.disassociate(opened._key)
            opened._file.surrender()
        raise


class _Borrowed(files.File):
    """A file around a descriptor that is not ours to close, whatever becomes of the file."""

    __slots__ = ()

    def close(self) -> None:
        """Lets go of the descriptor."""
        self.surrender()

    def __del__(self) -> None:
        self.surrender()


def _adopt(port: TrioPort, descriptor: int, mode: str, buffering: int, *, owns: bool) -> BinaryFile:
    """A file around a descriptor of the program's; until it is there, nothing is ours."""
    handle = (files.File if owns else _Borrowed)(descriptor, descriptor, mode)
    try:
        return BinaryFile(port, handle, mode=mode, buffering=buffering, owns=owns, given=True)
    except BaseException:
        handle.surrender()
        raise


def _check_mode(mode: str) -> tuple[str, bool]:
    """A mode without b and t, + at its end, and whether it is binary."""
    if not isinstance(mode, str):
        raise TypeError(f"mode must be a str, not {type(mode).__name__!r}")
    letters = set(mode)
    if len(letters) != len(mode) or letters - set("rwxabt+"):
        raise ValueError(f"invalid mode: {mode!r}")
    if {"t", "b"} <= letters:
        raise ValueError("can't have text and binary mode at once")
    what = letters & set("rwxa")
    if len(what) != 1:
        raise ValueError("must have exactly one of create/read/write/append mode")
    return what.pop() + ("+" if "+" in letters else ""), "b" in letters


def _check_arguments(
    *,
    binary: bool,
    buffering: int,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
) -> None:
    if binary:
        for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
            if value is not None:
                article = "an" if name[0] == "e" else "a"
                raise ValueError(f"binary mode doesn't take {article} {name} argument")
    elif buffering == 0:
        raise ValueError("can't have unbuffered text I/O")
    elif newline not in NEWLINES:
        raise ValueError(f"illegal newline value: {newline!r}")
    if buffering < -1:
        raise ValueError("invalid buffering size")


def _open(path: str | bytes, mode: str, opener: Opener | None) -> files.File:
    """In a thread."""
    if opener is None and not mode.startswith("a"):
        return files.open(path, mode)
    if sys.platform == "win32":
        if opener is not None:
            raise _unsupported("an opener")
        return _open_to_append(path)
    flags = posix.open_flags(mode.replace("a", "w"))
    if mode.startswith("a"):
        flags = flags & ~os.O_TRUNC | os.O_APPEND
    if opener is None:
        descriptor = os.open(path, flags, 0o666)
    else:
        descriptor = opener(path, flags)
        if descriptor < 0:
            raise ValueError(f"opener returned {descriptor}")
        os.set_inheritable(descriptor, False)
    file = files.File(descriptor, path, mode)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        file.close()
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return file


def _open_to_append(path: str | bytes) -> files.File:
    """Where `portio.open` alone can open a file: for reading and writing, at its end."""
    while True:
        try:
            return files.open(path, "r+")
        except FileNotFoundError:
            pass
        try:
            return files.open(path, "x+")
        except FileExistsError:
            pass  # it has appeared meanwhile


def _unsupported(what: str) -> io.UnsupportedOperation:
    """The error for what files on Windows cannot do."""
    return io.UnsupportedOperation(f"{what} cannot be used for completion I/O on Windows")
