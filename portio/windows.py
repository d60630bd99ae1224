r"""The system's part of files, descriptors and errors, for Windows: see system.py.

Files are opened by CreateFileW with FILE_FLAG_OVERLAPPED, in a small extension of
C (backends/windows.c); Python's own functions do not do that.

Paths.  Longer ones than 259 characters need no registry setting: they are made
absolute and get the prefix ``\\?\``.

Errors.  The system speaks in the numbers of GetLastError and of Winsock.  A
portable program asks for `errno`, and gets the number that POSIX systems have for
the same thing, by the table below; `winerror` keeps the original.  The table is
there because Python's own knows few numbers beyond files: ERROR_NETNAME_DELETED,
for one, would be EINVAL.
"""

from __future__ import annotations

import errno
import io
import msvcrt
import os
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

assert sys.platform == "win32"

if TYPE_CHECKING:
    from portio.backends.native import CData

__all__ = [
    "HAS_DIRECT",
    "KERNEL_KEEPS_OWNERS",
    "close",
    "descriptor_getter",
    "explain",
    "file_size",
    "identify",
    "keep_code",
    "open_file",
    "open_pipe",
    "truncate",
    "usable_processors",
]

#: Whether files can be opened for transfers past the cache.
HAS_DIRECT = True
#: Whether the system itself refuses a handle that belongs to a port already.
KERNEL_KEEPS_OWNERS = True

_CREATE_NEW, _CREATE_ALWAYS, _OPEN_EXISTING = 1, 2, 3  # CreateFileW

# For reading, for writing, and what if there is a file, or none.
_MODES = {
    "r": (1, 0, _OPEN_EXISTING),
    "r+": (1, 1, _OPEN_EXISTING),
    "w": (0, 1, _CREATE_ALWAYS),
    "w+": (1, 1, _CREATE_ALWAYS),
    "x": (0, 1, _CREATE_NEW),
    "x+": (1, 1, _CREATE_NEW),
}
_LONGEST_PLAIN_PATH = 247  # MAX_PATH, less the room that a name of a directory needs
_LONGEST_PATH = 32767 - len("\\\\?\\UNC\\")

_ERROR_DIRECTORY_NOT_SUPPORTED = 336
_ERROR_FILENAME_EXCED_RANGE = 206

_ERRNO = {
    1: errno.ENOSYS,  # ERROR_INVALID_FUNCTION
    2: errno.ENOENT,  # ERROR_FILE_NOT_FOUND
    3: errno.ENOENT,  # ERROR_PATH_NOT_FOUND
    4: errno.EMFILE,  # ERROR_TOO_MANY_OPEN_FILES
    5: errno.EACCES,  # ERROR_ACCESS_DENIED
    6: errno.EBADF,  # ERROR_INVALID_HANDLE
    8: errno.ENOMEM,  # ERROR_NOT_ENOUGH_MEMORY
    12: errno.EBADF,  # ERROR_INVALID_ACCESS: the engine's, for a handle without the right
    14: errno.ENOMEM,  # ERROR_OUTOFMEMORY
    19: errno.EROFS,  # ERROR_WRITE_PROTECT
    23: errno.EIO,  # ERROR_CRC
    25: errno.ESPIPE,  # ERROR_SEEK
    29: errno.EIO,  # ERROR_WRITE_FAULT
    30: errno.EIO,  # ERROR_READ_FAULT
    32: errno.EACCES,  # ERROR_SHARING_VIOLATION
    33: errno.EACCES,  # ERROR_LOCK_VIOLATION
    39: errno.ENOSPC,  # ERROR_HANDLE_DISK_FULL
    50: errno.ENOTSUP,  # ERROR_NOT_SUPPORTED
    64: errno.ECONNRESET,  # ERROR_NETNAME_DELETED
    80: errno.EEXIST,  # ERROR_FILE_EXISTS
    87: errno.EINVAL,  # ERROR_INVALID_PARAMETER
    109: errno.EPIPE,  # ERROR_BROKEN_PIPE
    112: errno.ENOSPC,  # ERROR_DISK_FULL
    121: errno.ETIMEDOUT,  # ERROR_SEM_TIMEOUT
    123: errno.EINVAL,  # ERROR_INVALID_NAME
    170: errno.EBUSY,  # ERROR_BUSY
    183: errno.EEXIST,  # ERROR_ALREADY_EXISTS
    206: errno.ENAMETOOLONG,  # ERROR_FILENAME_EXCED_RANGE
    223: errno.EFBIG,  # ERROR_FILE_TOO_LARGE
    231: errno.EBUSY,  # ERROR_PIPE_BUSY
    232: errno.EPIPE,  # ERROR_NO_DATA: the reader has closed its end
    233: errno.EPIPE,  # ERROR_PIPE_NOT_CONNECTED
    267: errno.ENOTDIR,  # ERROR_DIRECTORY
    336: errno.EISDIR,  # ERROR_DIRECTORY_NOT_SUPPORTED
    995: errno.ECANCELED,  # ERROR_OPERATION_ABORTED
    1132: errno.EINVAL,  # ERROR_MAPPED_ALIGNMENT
    1224: errno.EBUSY,  # ERROR_USER_MAPPED_FILE
    1225: errno.ECONNREFUSED,  # ERROR_CONNECTION_REFUSED
    1229: errno.ENOTCONN,  # ERROR_CONNECTION_INVALID
    1231: errno.ENETUNREACH,  # ERROR_NETWORK_UNREACHABLE
    1232: errno.EHOSTUNREACH,  # ERROR_HOST_UNREACHABLE
    1233: errno.ENETUNREACH,  # ERROR_PROTOCOL_UNREACHABLE
    1234: errno.ECONNREFUSED,  # ERROR_PORT_UNREACHABLE
    1235: errno.ECONNABORTED,  # ERROR_REQUEST_ABORTED
    1236: errno.ECONNABORTED,  # ERROR_CONNECTION_ABORTED
    1450: errno.ENOMEM,  # ERROR_NO_SYSTEM_RESOURCES
    1453: errno.ENOMEM,  # ERROR_WORKING_SET_QUOTA
    1454: errno.ENOMEM,  # ERROR_PAGEFILE_QUOTA
    1455: errno.ENOMEM,  # ERROR_COMMITMENT_LIMIT
    1816: errno.ENOMEM,  # ERROR_NOT_ENOUGH_QUOTA
    10004: errno.EINTR,  # WSAEINTR
    10009: errno.EBADF,  # WSAEBADF
    10013: errno.EACCES,  # WSAEACCES
    10014: errno.EFAULT,  # WSAEFAULT
    10022: errno.EINVAL,  # WSAEINVAL
    10024: errno.EMFILE,  # WSAEMFILE
    10035: errno.EAGAIN,  # WSAEWOULDBLOCK
    10038: errno.EBADF,  # WSAENOTSOCK: of what was a socket when it was associated
    10058: errno.EPIPE,  # WSAESHUTDOWN: our sending side was shut down
    10101: errno.ECONNRESET,  # WSAEDISCON
}
_WINSOCK = range(10000, 11000)  # the errno module has these numbers as they are


@cache
def _native() -> Any:
    """The extension, loaded when it is first needed: portio imports without it."""
    return import_module("portio.backends._windows")


def open_file(path: Any, mode: str, permissions: int, *, direct: bool) -> int:
    """The HANDLE of a file, opened in one of the modes of `portio.open`."""
    name = os.fsdecode(os.fspath(path))
    if "\0" in name:
        raise ValueError("embedded null character")
    reads, writes, disposition = _MODES[mode]
    writable = permissions & 0o222 != 0
    if len(name) > _LONGEST_PLAIN_PATH and not name.startswith("\\\\?\\"):
        name = _long(name)
    if len(name) > _LONGEST_PATH:
        raise _error(_ERROR_FILENAME_EXCED_RANGE, path)
    number = _native().lib.portio_file_open(
        name, reads, writes, disposition, int(not writable), int(direct)
    )
    if number < 0:
        raise _error(-number, path)
    return int(number)


def _long(path: str) -> str:
    """The form of a path that may be longer than MAX_PATH."""
    full = os.path.abspath(path)
    if full.startswith("\\\\"):
        return full if full.startswith(("\\\\.\\", "\\\\?\\")) else "\\\\?\\UNC" + full[1:]
    return "\\\\?\\" + full


def open_pipe() -> tuple[int, int]:
    """The HANDLEs of a new pipe's reading and writing end."""
    ends: CData = _native().ffi.new("int64_t[2]")
    refused = _native().lib.portio_pipe_open(ends, ends + 1)
    if refused < 0:
        raise _error(-refused)
    return ends[0], ends[1]


def close(descriptor: int) -> None:
    """Closes a file, a pipe or whatever is not a socket."""
    _checked(_native().lib.portio_file_close(descriptor))


def file_size(descriptor: int) -> int:
    """The size of a file in bytes."""
    return _checked(_native().lib.portio_file_size(descriptor))


def truncate(descriptor: int, size: int) -> None:
    """Makes a file `size` bytes long."""
    _checked(_native().lib.portio_file_truncate(descriptor, size))


def descriptor_getter(handle: Any) -> Callable[[], int]:
    """A function that gives the HANDLE or SOCKET of an object with ``fileno()``.

    A file object of Python's has a descriptor of the C runtime, behind which is the
    HANDLE; every other object is taken to mean what the system knows, as sockets and
    multiprocessing's pipes do.
    """
    getter: Callable[[], int] = handle.fileno
    inner = handle if isinstance(handle, io.IOBase) else getattr(handle, "file", None)
    if isinstance(inner, io.IOBase):
        return lambda: msvcrt.get_osfhandle(getter())
    return getter


def identify(descriptor: int) -> tuple[int, int, bool] | None:  # noqa: ARG001
    """Nothing identifies a handle here; the kernel keeps the books itself."""
    return None


def explain(code: int) -> tuple[int, str]:
    """The errno and the text of an error of the system."""
    number = _ERRNO.get(code)
    if number is None:
        number = code if code in _WINSOCK else OSError(0, "", None, code).errno or errno.EIO
    return number, _text(code) or errno.errorcode.get(number) or os.strerror(number)


def keep_code(error: OSError, code: int) -> None:
    """Makes `code` the error's `winerror`, which does not change its errno any more."""
    error.winerror = code
    # OSError forgets its winerror when it is pickled; what its dictionary holds is
    # set again as attributes.
    error.__dict__["winerror"] = code


def usable_processors() -> int:
    """How many processors this process may use."""
    return max(1, int(_native().lib.portio_processors()))


def _text(code: int) -> str:
    try:
        native = _native()
    except ImportError:
        return ""
    room = 512
    text: CData = native.ffi.new("wchar_t[]", room)
    length = native.lib.portio_error_text(code, text, room)
    return str(native.ffi.unpack(text, length)) if length else ""


def _checked(result: int) -> int:
    if result < 0:
        raise _error(-result)
    return int(result)


def _error(code: int, path: object = None) -> OSError:
    number, text = explain(code)
    error = OSError(number, text) if path is None else OSError(number, text, path)
    keep_code(error, code)
    return error
