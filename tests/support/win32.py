"""The part of the Win32 API that the tests use with their own hands."""

from __future__ import annotations

import ctypes
import itertools
import msvcrt
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import wintypes
from pathlib import Path
from typing import Any, Protocol

assert sys.platform == "win32"

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_ntdll = ctypes.WinDLL("ntdll")

GENERIC_READ, GENERIC_WRITE = 0x80000000, 0x40000000
FILE_SHARE_ALL = 7
OPEN_EXISTING, OPEN_ALWAYS = 3, 4
FILE_FLAG_OVERLAPPED = 0x40000000
FILE_FLAG_BACKUP_SEMANTICS = 0x02000000
PIPE_ACCESS_INBOUND, PIPE_ACCESS_OUTBOUND = 1, 2
FILE_FLAG_FIRST_PIPE_INSTANCE = 0x00080000
INVALID_HANDLE_VALUE = ctypes.c_void_p(-1).value
ERROR_IO_PENDING, ERROR_BROKEN_PIPE, ERROR_HANDLE_EOF = 997, 109, 38
ERROR_OPERATION_ABORTED = 995
WAIT_OBJECT_0, WAIT_TIMEOUT = 0, 258
FILE_SKIP_COMPLETION_PORT_ON_SUCCESS = 1
THREAD_QUERY_LIMITED_INFORMATION = 0x0800
OBJECT_TYPE_INFORMATION = 2
FSCTL_SET_SPARSE = 0x000900C4
PIPE_SIZE = 65536
LARGEST_HOLE = 256  # handles; Wine gives out the lowest that is free

_names = itertools.count()


class Overlapped(ctypes.Structure):
    _fields_ = (
        ("internal", ctypes.c_void_p),
        ("internal_high", ctypes.c_void_p),
        ("offset", wintypes.DWORD),
        ("offset_high", wintypes.DWORD),
        ("event", ctypes.c_void_p),
    )


def _declare(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_kernel32, name)
    function.restype, function.argtypes = result, arguments
    return function


_H, _D, _B = wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL
_create_file = _declare("CreateFileW", _H, wintypes.LPCWSTR, _D, _D, _H, _D, _D, _H)
_create_pipe = _declare("CreateNamedPipeW", _H, wintypes.LPCWSTR, _D, _D, _D, _D, _D, _D, _H)
_create_event = _declare("CreateEventW", _H, _H, _B, _B, wintypes.LPCWSTR)
_read_file = _declare("ReadFile", _B, _H, _H, _D, _H, ctypes.POINTER(Overlapped))
_write_file = _declare("WriteFile", _B, _H, _H, _D, _H, ctypes.POINTER(Overlapped))
_result = _declare("GetOverlappedResult", _B, _H, ctypes.POINTER(Overlapped), _H, _B)
_wait = _declare("WaitForSingleObject", _D, _H, _D)
_cancel = _declare("CancelIoEx", _B, _H, ctypes.POINTER(Overlapped))
_control = _declare("DeviceIoControl", _B, _H, _D, _H, _D, _H, _D, _H, ctypes.POINTER(Overlapped))
_peek = _declare("PeekNamedPipe", _B, _H, _H, _D, *[ctypes.POINTER(_D)] * 3)
_close = _declare("CloseHandle", _B, _H)
_information = _declare("GetHandleInformation", _B, _H, ctypes.POINTER(_D))
_current_process = _declare("GetCurrentProcess", _H)
_handle_count = _declare("GetProcessHandleCount", _B, _H, ctypes.POINTER(_D))
_open_thread = _declare("OpenThread", _H, _D, _B, _D)
_thread_times = _declare("GetThreadTimes", _B, _H, *[ctypes.POINTER(wintypes.FILETIME)] * 4)
_Mask = ctypes.c_size_t
_set_modes = _declare("SetFileCompletionNotificationModes", _B, _H, ctypes.c_ubyte)
_get_affinity = _declare(
    "GetProcessAffinityMask", _B, _H, ctypes.POINTER(_Mask), ctypes.POINTER(_Mask)
)
_set_affinity = _declare("SetProcessAffinityMask", _B, _H, _Mask)
_query_object = _ntdll.NtQueryObject
_query_object.restype = ctypes.c_long
_query_object.argtypes = (_H, ctypes.c_int, _H, wintypes.ULONG, ctypes.POINTER(wintypes.ULONG))


class HasFileno(Protocol):
    def fileno(self) -> int: ...


Handle = int | HasFileno


def _number(handle: Handle) -> int:
    return handle if isinstance(handle, int) else handle.fileno()


def _error() -> OSError:
    return ctypes.WinError(ctypes.get_last_error())


def _checked(handle: int | None) -> int:
    if handle in (None, INVALID_HANDLE_VALUE):
        raise _error()
    assert handle is not None
    return handle


@contextmanager
def _overlapped(offset: int) -> Iterator[Overlapped]:
    """For one transfer, of which no port hears, though the handle belong to one."""
    event = _checked(_create_event(None, True, False, None))
    try:
        yield Overlapped(offset=offset & 0xFFFFFFFF, offset_high=offset >> 32, event=event | 1)
    finally:
        _close(event)


def _transfer(function: Any, handle: int, buffer: Any, length: int, offset: int) -> int:
    with _overlapped(offset) as record:
        moved = _D()
        started = function(handle, buffer, length, None, ctypes.byref(record))
        if not started and ctypes.get_last_error() != ERROR_IO_PENDING:
            raise _error()
        if not _result(handle, ctypes.byref(record), ctypes.byref(moved), True):
            raise _error()
        return moved.value


def read(handle: Handle, count: int, offset: int = 0) -> bytes:
    """What there is, at most so much; waits for the first byte."""
    buffer = ctypes.create_string_buffer(count)
    try:
        moved = _transfer(_read_file, _number(handle), buffer, count, offset)
    except OSError as error:
        if error.winerror in (ERROR_BROKEN_PIPE, ERROR_HANDLE_EOF):
            return b""
        raise
    return buffer.raw[:moved]


def write(handle: Handle, data: bytes, offset: int = 0) -> int:
    """Write, and wait until it is done; how many bytes were written."""
    return _transfer(_write_file, _number(handle), data, len(data), offset)


def close(handle: int) -> None:
    if not _close(handle):
        raise _error()


def is_open(handle: int) -> bool:
    """Whether this number is one of an open handle now."""
    return bool(_information(handle, ctypes.byref(_D())))


def open_pipe(
    *, blocking: bool = True, writer_flags: int = FILE_FLAG_OVERLAPPED
) -> tuple[int, int]:
    """A pipe that portio has not made, which a port can take: its ends for reading, writing."""
    del blocking  # a handle opened for overlapped I/O has no such mode
    name = rf"\\.\pipe\portio-test-{os.getpid()}-{next(_names)}"
    reader = _checked(
        _create_pipe(
            name,
            PIPE_ACCESS_INBOUND | FILE_FLAG_OVERLAPPED | FILE_FLAG_FIRST_PIPE_INSTANCE,
            *(0, 1, PIPE_SIZE, PIPE_SIZE, 0, None),
        )
    )
    try:
        writer = _create_file(name, GENERIC_WRITE, 0, None, OPEN_EXISTING, writer_flags, None)
        return reader, _checked(writer)
    except OSError:
        _close(reader)
        raise


def create_named_pipe() -> tuple[str, int]:
    """A pipe that somebody may open by this name to read from, and our end of it."""
    name = rf"\\.\pipe\portio-test-{os.getpid()}-{next(_names)}"
    mode = PIPE_ACCESS_OUTBOUND | FILE_FLAG_OVERLAPPED | FILE_FLAG_FIRST_PIPE_INSTANCE
    return name, _checked(_create_pipe(name, mode, *(0, 1, PIPE_SIZE, PIPE_SIZE, 0, None)))


def open_pipe_for_child() -> tuple[int, int]:
    """A pipe of which a port takes the reading end, and subprocess the writing descriptor."""
    reader, writer = open_pipe(writer_flags=0)
    return reader, msvcrt.open_osfhandle(writer, os.O_WRONLY)


def skip_completion_on_success(handle: int) -> None:
    """Have the system leave out the packets of what succeeds at once on this handle."""
    if not _set_modes(handle, FILE_SKIP_COMPLETION_PORT_ON_SUCCESS):
        raise ctypes.WinError(ctypes.get_last_error())


def open_file(path: Path | str, mode: str = "r+", *, flags: int = FILE_FLAG_OVERLAPPED) -> int:
    """A file that portio has not opened, which a port can take unless `flags` say otherwise."""
    access = {"r": GENERIC_READ, "w": GENERIC_WRITE, "r+": GENERIC_READ | GENERIC_WRITE}[mode]
    how = OPEN_ALWAYS if mode == "r+" else OPEN_EXISTING
    return _checked(_create_file(str(path), access, FILE_SHARE_ALL, None, how, flags, None))


def try_read(reader: Handle, count: int) -> bytes:
    """What a pipe has now; BlockingIOError when it is empty, b"" at its end."""
    available = _D()
    if not _peek(_number(reader), None, 0, None, ctypes.byref(available), None):
        if ctypes.get_last_error() == ERROR_BROKEN_PIPE:
            return b""
        raise _error()
    if not available.value:
        raise BlockingIOError
    return read(reader, min(count, available.value))


def try_write(writer: Handle, data: bytes) -> int:
    """Write to a pipe that has room, BlockingIOError when it has none."""
    handle = _number(writer)
    with _overlapped(0) as record:
        moved = _D()
        if not _write_file(handle, data, len(data), None, ctypes.byref(record)):
            if ctypes.get_last_error() != ERROR_IO_PENDING:
                raise _error()
            if _wait(record.event, 100) != WAIT_OBJECT_0:
                _cancel(handle, ctypes.byref(record))
        if not _result(handle, ctypes.byref(record), ctypes.byref(moved), True):
            if ctypes.get_last_error() == ERROR_OPERATION_ABORTED:
                raise BlockingIOError
            raise _error()
        return moved.value


def fill_pipe(writer: Handle) -> None:
    """Write until the pipe takes no more."""
    try:
        while True:
            try_write(writer, bytes(4096))
    except BlockingIOError:
        pass


def of_file(file: HasFileno) -> int:
    """The handle of one of Python's own files."""
    return msvcrt.get_osfhandle(file.fileno())


def open_folder(path: Path) -> int:
    return open_file(path, "r", flags=FILE_FLAG_OVERLAPPED | FILE_FLAG_BACKUP_SEMANTICS)


def make_sparse(handle: Handle) -> None:
    """Let what is never written of a file take no room."""
    number = _number(handle)
    with _overlapped(0) as record:
        started = _control(
            number, FSCTL_SET_SPARSE, *(None, 0, None, 0, None), ctypes.byref(record)
        )
        if started or ctypes.get_last_error() == ERROR_IO_PENDING:
            _result(number, ctypes.byref(record), ctypes.byref(_D()), True)


def handle_count() -> int:
    """How many handles of every kind this process has."""
    count = _D()
    if not _handle_count(_current_process(), ctypes.byref(count)):
        raise _error()
    return count.value


def handles() -> dict[int, str]:
    """The open handles of this process and the name of each one's type."""
    found: dict[int, str] = {}
    count = handle_count()  # which Wine says is 0
    buffer = ctypes.create_string_buffer(1024)
    last = 0
    for handle in range(4, 1 << 24, 4):  # handles are multiples of four
        if len(found) == count if count else handle - last > 4 * LARGEST_HOLE:
            break
        if _query_object(handle, OBJECT_TYPE_INFORMATION, buffer, len(buffer), None) == 0:
            found[handle] = _type_name(buffer)
            last = handle
    return found


def handles_of_io() -> dict[int, str]:
    """Those that I/O is done with: sockets, files, pipes and ports.

    The others are Python's and the system's own, which keep events, semaphores and
    threads, and open them when they are first needed.  So are the standard streams
    left out, which a capturing pytest opens anew now and then.
    """
    standard = {_standard_stream(descriptor) for descriptor in range(3)}
    return {
        handle: name
        for handle, name in handles().items()
        if name in ("File", "IoCompletion") and handle not in standard
    }


def _standard_stream(descriptor: int) -> int:
    try:
        return msvcrt.get_osfhandle(descriptor)
    except OSError:
        return 0


def _type_name(buffer: Any) -> str:
    """OBJECT_TYPE_INFORMATION begins with a UNICODE_STRING."""
    length = wintypes.USHORT.from_buffer(buffer).value
    address = ctypes.c_void_p.from_buffer(buffer, ctypes.sizeof(ctypes.c_void_p)).value
    return ctypes.wstring_at(address, length // 2) if address else ""


def processor_time(thread: int) -> int | None:
    """The processor time of a thread in units of 100 ns; None when it has ended."""
    handle = _open_thread(THREAD_QUERY_LIMITED_INFORMATION, False, thread)
    if not handle:
        return None
    try:
        times = [wintypes.FILETIME() for _ in range(4)]
        if not _thread_times(handle, *map(ctypes.byref, times)):
            return None
        return sum(time.dwHighDateTime << 32 | time.dwLowDateTime for time in times[2:])
    finally:
        _close(handle)


def get_affinity() -> set[int]:
    """The processors that this process may use."""
    mask, of_system = _Mask(), _Mask()
    if not _get_affinity(_current_process(), ctypes.byref(mask), ctypes.byref(of_system)):
        raise _error()
    return {bit for bit in range(64) if mask.value >> bit & 1}


def set_affinity(processors: set[int]) -> None:
    if not _set_affinity(_current_process(), sum(1 << bit for bit in processors)):
        raise _error()


def create_event() -> int:
    """A handle with which there is no I/O."""
    return _checked(_create_event(None, True, False, None))


def make_folder(path: Path) -> None:
    """os.mkdir for a path of any length."""
    os.makedirs("\\\\?\\" + str(path), exist_ok=True)


def wait_for(handle: int, seconds: float) -> bool:
    """Whether the handle is signalled before the time is over."""
    return bool(_wait(handle, round(seconds * 1000)) == WAIT_OBJECT_0)
