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

from portio import files, posix
from portio.trio.binary import BinaryFile
from portio.trio.ports import TrioPort, current_port
from portio.trio.text import NEWLINES, TextFile

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

    A descriptor can be given on Linux only, and so can an `opener`.

    Raises what `open` raises.
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
    if isinstance(file, int):
        if sys.platform == "win32":
            raise _unsupported("a descriptor that portio has not opened")
        await trio.lowlevel.checkpoint()
        handle = files.File(file, file, short)
    elif closefd:
        handle = await trio.to_thread.run_sync(_open, os.fspath(file), short, opener)
    else:
        raise ValueError("Cannot use closefd=False with file name")
    try:
        opened = BinaryFile(port, handle, mode=short, buffering=buffering, owns=closefd)
        if binary:
            return opened
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
            handle.close()
        else:
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
