"""Pipes as streams."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from portio.files import PipeEnd, pipe
from portio.operations import Read, Write
from portio.trio.streams import Receiving, Sending

if TYPE_CHECKING:
    from portio.trio.ports import TrioPort

__all__ = ["PipeReceiveStream", "PipeSendStream", "open_pipe"]

#: On Windows trio waits for sockets only, and refuses what is none.
_WATCHABLE = sys.platform != "win32"


class PipeSendStream(Sending):
    """The writing end of a pipe.

    `end` is what `portio.pipe` gave, or on Linux a descriptor; from now on it is this
    stream's.  `on` is the port to use; None: that of the run.

    Raises what `Port.associate` raises.
    """

    _send_type = Write
    _watchable = _WATCHABLE

    def __init__(self, end: PipeEnd | int, *, on: TrioPort | None = None) -> None:
        super().__init__(end, on)

    def fileno(self) -> int:
        """The descriptor, on Windows the HANDLE; -1 when it is closed."""
        return _number(self)

    def __repr__(self) -> str:
        return f"<portio.trio.PipeSendStream {self._key.handle!r}>"


class PipeReceiveStream(Receiving):
    """The reading end of a pipe; its arguments are those of `PipeSendStream`."""

    _watchable = _WATCHABLE

    def __init__(self, end: PipeEnd | int, *, on: TrioPort | None = None) -> None:
        super().__init__(end, on)

    def _make_receive(self) -> Read:
        return Read(self._key, b"")

    def fileno(self) -> int:
        """The descriptor, on Windows the HANDLE; -1 when it is closed."""
        return _number(self)

    def __repr__(self) -> str:
        return f"<portio.trio.PipeReceiveStream {self._key.handle!r}>"


def _number(stream: Any) -> int:
    return -1 if stream._closed else stream._key._descriptor


def open_pipe(*, on: TrioPort | None = None) -> tuple[PipeSendStream, PipeReceiveStream]:
    """A new pipe: the end to send on, and the end to receive from.

    Raises the OSError that the system gives.
    """
    reader, writer = pipe()
    try:
        return PipeSendStream(writer, on=on), PipeReceiveStream(reader, on=on)
    except BaseException:
        reader.close()
        writer.close()
        raise
