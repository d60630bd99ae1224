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

    def new(self, ctype: str | CData, initial: object = ..., /) -> CData: ...
    def typeof(self, ctype: str, /) -> CData: ...
    def from_buffer(self, ctype: CData, buffer: object, writable: bool = ..., /) -> CData: ...
    def buffer(self, data: CData, size: int = ..., /) -> Any: ...
    def string(self, data: CData, /) -> bytes: ...
    def gc(self, data: CData, destructor: Callable[[CData], object] | None, /) -> CData: ...


class Library(Protocol):
    """An extension's `lib` object: the functions and constants of the door."""

    PORTIO_UNQUEUED: int
    PORTIO_VECTORED: int
    PORTIO_DATA_ONLY: int

    PORTIO_MORE: int

    PORTIO_CLOSED: int
    PORTIO_INTERRUPTED: int
    PORTIO_WRONG_THREAD: int
    PORTIO_NO_HANDLE: int
    PORTIO_BUSY: int
    PORTIO_NO_MEMORY: int
    PORTIO_UNSUPPORTED: int
    PORTIO_INVALID: int
    PORTIO_SYSTEM: int

    PORTIO_STREAM_SOCKET: int
    PORTIO_DATAGRAM_SOCKET: int
    PORTIO_FILE: int
    PORTIO_PIPE: int

    def portio_probe_system(self, probe: CData, /) -> None: ...
    def portio_feature_name(self, bit: int, /) -> CData: ...

    def portio_port_create(self, options: CData, port: CData, /) -> int: ...
    def portio_reserve(self, port: CData, slots: int, /) -> int: ...
    def portio_port_close(self, port: CData, owner_ended: int, /) -> int: ...
    def portio_port_free(self, port: CData, /) -> None: ...
    def portio_fileno(self, port: CData, /) -> int: ...

    def portio_handle_open(self, port: CData, handle: int, out: CData, /) -> int: ...
    def portio_handle_release(self, port: CData, handle: int, /) -> int: ...
    def portio_handle_close(self, port: CData, handle: int, /) -> int: ...
    def portio_handle_abandon(self, port: CData, handle: int, /) -> int: ...

    def portio_submit(self, port: CData, requests: CData, count: int, /) -> int: ...
    def portio_submit_one(
        self,
        port: CData,
        kind: int,
        flags: int,
        handle: int,
        token: int,
        buffer: CData,
        length: int,
        argument: int,
        /,
    ) -> int: ...
    def portio_cancel(self, port: CData, token: int, /) -> int: ...
    def portio_flush(self, port: CData, /) -> int: ...

    def portio_post(self, port: CData, token: int, /) -> int: ...
    def portio_get(self, port: CData, records: CData, limit: int, timeout: int, /) -> int: ...
    def portio_wait(self, port: CData, token: int, record: CData, timeout: int, /) -> int: ...
    def portio_blocking(self, port: CData, enter: int, /) -> int: ...


class Native(NamedTuple):
    """One loaded engine."""

    name: str
    ffi: ForeignInterface
    lib: Library
