"""Types for the native interface, so that what goes through the door is checked.

native.cdef.txt is the one description of the door, and its constants are read
from the extension that was loaded: nothing here repeats a value.  These classes
only name what there is, for mypy and for the reader; at run time they do nothing.

Everything that cffi makes (pointers, arrays, structures) is `CData`, an Any: its
fields are checked by cffi when they are used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

__all__ = ["CData", "ForeignInterface", "Library", "Native"]

CData: TypeAlias = Any


class ForeignInterface(Protocol):
    """What portio uses of an extension's `ffi` object."""

    NULL: CData

    new: Callable[..., CData]
    typeof: Callable[[str], CData]
    from_buffer: Callable[..., CData]
    buffer: Callable[..., Any]
    string: Callable[[CData], bytes]
    cast: Callable[[str, CData], CData]
    addressof: Callable[..., CData]
    gc: Callable[[CData, Callable[[CData], object] | None], CData]


class Library(Protocol):
    """An extension's `lib` object: the functions and constants of the door."""

    PORTIO_UNQUEUED: int
    PORTIO_VECTORED: int
    PORTIO_DATA_ONLY: int
    PORTIO_QUIET: int
    PORTIO_MULTISHOT: int
    PORTIO_LEND: int

    PORTIO_MORE: int

    PORTIO_CLOSED: int
    PORTIO_INTERRUPTED: int
    PORTIO_WRONG_THREAD: int
    PORTIO_NO_HANDLE: int
    PORTIO_BUSY: int
    PORTIO_NO_MEMORY: int
    PORTIO_UNSUPPORTED: int
    PORTIO_INVALID: int
    PORTIO_WOULD_SLEEP: int
    PORTIO_NOT_OVERLAPPED: int
    PORTIO_SYSTEM: int

    PORTIO_STREAM_SOCKET: int
    PORTIO_DATAGRAM_SOCKET: int
    PORTIO_FILE: int
    PORTIO_PIPE: int

    portio_probe_system: Callable[[CData], None]
    portio_feature_name: Callable[[int], CData]

    portio_port_create: Callable[[CData, CData], int]
    portio_reserve: Callable[[CData, int], int]
    portio_port_close: Callable[[CData, int], int]
    portio_port_free: Callable[[CData], None]
    portio_fileno: Callable[[CData], int]
    portio_system_handle: Callable[[CData], int]

    portio_handle_open: Callable[[CData, int, CData], int]
    portio_handle_adopt: Callable[[CData, int, int, CData], int]
    portio_handle_release: Callable[[CData, int], int]
    portio_handle_close: Callable[[CData, int], int]
    portio_handle_abandon: Callable[[CData, int], int]

    portio_region_open: Callable[[CData, CData, int, CData], int]
    portio_region_close: Callable[[CData, CData], int]

    portio_submit: Callable[[CData, CData, int], int]
    portio_submit_one: Callable[[CData, int, int, int, int, CData, int, int], int]
    portio_skipped: Callable[[CData, int], int]
    portio_pool_create: Callable[[CData, int, int], CData]
    portio_pool_free: Callable[[CData], object]
    portio_pool_return: Callable[[CData, CData, int], int]

    portio_renew: Callable[[CData, int, int], int]
    portio_cancel: Callable[[CData, int], int]
    portio_flush: Callable[[CData], int]

    portio_post: Callable[[CData, int], int]
    portio_get: Callable[[CData, CData, int, int], int]
    portio_wait: Callable[[CData, int, CData, int], int]
    portio_get_until: Callable[[CData, CData, int, int, int], int]
    portio_wait_until: Callable[[CData, int, CData, int, int], int]
    portio_blocking: Callable[[CData, int], int]


class Native(NamedTuple):
    """One loaded engine."""

    name: str
    ffi: ForeignInterface
    lib: Library
