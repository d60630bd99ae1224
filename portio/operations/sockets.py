"""Operations on sockets, but for accepting (accept.py).

Buffers are the caller's until submission and the operation's until completion;
see portio/buffers.py for what is accepted.  `flags` are the system's message
flags (``socket.MSG_…``), 0 as a rule.

Every constructor stores its arguments and no more; they are checked at
submission, which may be in another thread and more than once.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from portio import addresses
from portio.accelerator import RecvFields, SendFields
from portio.keys import descriptor_of
from portio.operations import numbers
from portio.operations.base import (
    LARGEST,
    ExtendedOperation,
    Operation,
    Prepared,
    PreparedFully,
    Transfer,
    check_flags,
    check_offset,
    no_result,
    unusable_key,
)

if TYPE_CHECKING:
    from portio.addresses import Address
    from portio.backends.native import CData
    from portio.buffers import Buffers
    from portio.engine import Engine
    from portio.files import Handle
    from portio.keys import CompletionKey, HasFileno
    from portio.operations.base import Entry
    from portio.unqueued import UnqueuedOperations

__all__ = ["Connect", "Recv", "RecvFrom", "Send", "SendFile", "SendTo", "Shutdown"]

_DIRECTIONS = {socket.SHUT_RD: 0, socket.SHUT_WR: 1, socket.SHUT_RDWR: 2}  # the door's


class Connect(ExtendedOperation[None]):
    """Connects a socket.

    `address` is numeric, in the form of the socket's family; a host name is a
    ValueError at submission, because resolving one would block.
    """

    __slots__ = ("address",)

    key: CompletionKey
    label = "portio.Connect"
    _brief = True

    #: Where to.
    address: Address

    def __init__(self, key: CompletionKey, address: Address) -> None:
        self.key = key
        self.address = address
        self._entry = None

    def _prepare_extended(self, port: UnqueuedOperations, token: int, mode: int) -> PreparedFully:
        key = self.key
        if (
            key._port is not port
            or not key._fits & numbers.SOCKETS
            or key._number() != key._descriptor
        ):
            raise unusable_key(self, port, "a socket")
        pin = address, size = _address(port, key, self.address)
        entry = self, key, no_result, pin, token, port, mode
        request = port._native, numbers.CONNECT, mode, key._id, token, port._null, 0, 0
        return (entry, request), (address, size, 0)


class Recv(RecvFields, Transfer[int]):
    """Receives what is there, at least one byte; the result is how many.

    0 means the end of the stream, or an empty datagram.  With an empty buffer on
    a stream it completes when there is something to read, and takes nothing.

    Raises at submission: BufferError for a read-only buffer.
    """

    __slots__ = ()

    key: CompletionKey
    label = "portio.Recv"

    #: Where to put it: a writable buffer, or a sequence of them.
    buffer: Buffers
    #: Message flags.
    flags: int

    def __init__(self, key: CompletionKey, buffer: Buffers, flags: int = 0) -> None:
        self.key = key
        self.buffer = buffer
        self.flags = flags
        self._entry = None

    def _prepare(self, port: UnqueuedOperations, token: int, mode: int) -> Prepared:
        key = self.key
        if (
            key._port is not port
            or not key._fits & numbers.SOCKETS
            or key._number() != key._descriptor
        ):
            raise unusable_key(self, port, "a socket")
        flags = 0 if self.flags == 0 else check_flags(self.flags)
        from_buffer = port._from_buffer
        try:
            pin = from_buffer(port._chars, self.buffer, True)
        except TypeError as refused:
            form, buffer, length, pin, settle = self._pin_sequence(
                port, self.buffer, writable=True, refused=refused
            )
            entry = self, key, settle, pin, token, port, mode
            request = port._native, numbers.RECV, form | mode, key._id, token, buffer, length, flags
            return entry, request
        entry = self, key, None, pin, token, port, mode
        request = port._native, numbers.RECV, mode, key._id, token, pin, len(pin), flags
        return entry, request


class Send(SendFields, Transfer[int]):
    """Sends every byte; the result is how many.

    On a stream it completes when all are handed over, or with an error whose
    completion says how many were.  On a datagram socket it is one message.
    """

    __slots__ = ()

    key: CompletionKey
    label = "portio.Send"

    #: What to send: a buffer, or a sequence of them.
    buffer: Buffers
    #: Message flags.
    flags: int

    def __init__(self, key: CompletionKey, buffer: Buffers, flags: int = 0) -> None:
        self.key = key
        self.buffer = buffer
        self.flags = flags
        self._entry = None

    def _prepare(self, port: UnqueuedOperations, token: int, mode: int) -> Prepared:
        key = self.key
        if (
            key._port is not port
            or not key._fits & numbers.SOCKETS
            or key._number() != key._descriptor
        ):
            raise unusable_key(self, port, "a socket")
        flags = 0 if self.flags == 0 else check_flags(self.flags)
        buffer = self.buffer
        if type(buffer) is bytes:
            entry: Entry = self, key, None, buffer, token, port, mode
            request = port._native, numbers.SEND, mode, key._id, token, buffer, len(buffer), flags
            return entry, request
        from_buffer = port._from_buffer
        try:
            pin = from_buffer(port._chars, buffer)
        except TypeError as refused:
            form, data, length, pin, settle = self._pin_sequence(
                port, buffer, writable=False, refused=refused
            )
            entry = self, key, settle, pin, token, port, mode
            request = port._native, numbers.SEND, form | mode, key._id, token, data, length, flags
            return entry, request
        entry = self, key, None, pin, token, port, mode
        request = port._native, numbers.SEND, mode, key._id, token, pin, len(pin), flags
        return entry, request


class RecvFrom(ExtendedOperation["tuple[int, Any]"]):
    """Receives one message; the result is its size and where it came from.

    A message that does not fit is an error (EMSGSIZE): the completion's nbytes
    says how much of it is in the buffer, the rest is gone, and the next receive
    works.  The address has the form of the `socket` module; it is None on a
    stream.

    Raises at submission: BufferError for a read-only buffer.
    """

    __slots__ = ("buffer", "flags")

    key: CompletionKey
    label = "portio.RecvFrom"

    #: Where to put it: a writable buffer, or a sequence of them.
    buffer: Buffers
    #: Message flags.
    flags: int

    def __init__(self, key: CompletionKey, buffer: Buffers, flags: int = 0) -> None:
        self.key = key
        self.buffer = buffer
        self.flags = flags
        self._entry = None

    def _prepare_extended(self, port: UnqueuedOperations, token: int, mode: int) -> PreparedFully:
        key = self.key
        if (
            key._port is not port
            or not key._fits & numbers.SOCKETS
            or key._number() != key._descriptor
        ):
            raise unusable_key(self, port, "a socket")
        flags = 0 if self.flags == 0 else check_flags(self.flags)
        form, buffer, length, pin, scatter = self._pin(port, self.buffer, writable=True)
        sender = _Sender(port, scatter)
        settle = sender.settle  # which holds the address in place
        entry = self, key, settle, pin, token, port, mode
        request = port._native, numbers.RECVFROM, form | mode, key._id, token, buffer, length, flags
        return (entry, request), (sender.address, sender.size, 0)


class SendTo(ExtendedOperation[int]):
    """Sends one message to `address`; the result is its size.

    `address` is numeric, in the form of the socket's family; a host name is a
    ValueError at submission.
    """

    __slots__ = ("address", "buffer", "flags")

    key: CompletionKey
    label = "portio.SendTo"

    #: What to send: a buffer, or a sequence of them.
    buffer: Buffers
    #: Where to.
    address: Address
    #: Message flags.
    flags: int

    def __init__(
        self, key: CompletionKey, buffer: Buffers, address: Address, flags: int = 0
    ) -> None:
        self.key = key
        self.buffer = buffer
        self.address = address
        self.flags = flags
        self._entry = None

    def _prepare_extended(self, port: UnqueuedOperations, token: int, mode: int) -> PreparedFully:
        key = self.key
        if (
            key._port is not port
            or not key._fits & numbers.SOCKETS
            or key._number() != key._descriptor
        ):
            raise unusable_key(self, port, "a socket")
        flags = 0 if self.flags == 0 else check_flags(self.flags)
        address, size = _address(port, key, self.address)
        form, buffer, length, pin, settle = self._pin(port, self.buffer, writable=False)
        kept = pin, address, size
        entry = self, key, settle, kept, token, port, mode
        request = port._native, numbers.SENDTO, form | mode, key._id, token, buffer, length, flags
        return (entry, request), (address, size, 0)


class Shutdown(Operation[None]):
    """Ends one direction of a connection, or both.

    `how` is ``socket.SHUT_WR``, ``SHUT_RD`` or ``SHUT_RDWR``.  The sending
    direction ends after the sends that were submitted before.
    """

    __slots__ = ("how",)

    key: CompletionKey
    label = "portio.Shutdown"
    _brief = True

    #: What to end.
    how: int

    def __init__(self, key: CompletionKey, how: int = socket.SHUT_WR) -> None:
        self.key = key
        self.how = how
        self._entry = None

    def _prepare(self, port: UnqueuedOperations, token: int, mode: int) -> Prepared:
        key = self.key
        if (
            key._port is not port
            or not key._fits & numbers.SOCKETS
            or key._number() != key._descriptor
        ):
            raise unusable_key(self, port, "a socket")
        try:
            direction = _DIRECTIONS[self.how]
        except (KeyError, TypeError):
            wanted = "SHUT_RD, SHUT_WR or SHUT_RDWR"
            raise ValueError(f"how must be {wanted}, not {self.how!r}") from None
        entry = self, key, no_result, None, token, port, mode
        request = port._native, numbers.SHUTDOWN, mode, key._id, token, port._null, 0, direction
        return entry, request


class SendFile(ExtendedOperation[int]):
    """Sends a part of a file; the result is how many bytes.

    `count` None sends up to the end of the file; it also completes there when
    `count` is larger.  The bytes do not pass through Python.  The file's own
    position is neither used nor changed, and the file need not belong to a port.
    A descriptor given as an int is a HANDLE on Windows.  The operation keeps `file`
    alive; a program that closes it, or such a descriptor, before the completion, has
    a bug.
    """

    __slots__ = ("count", "file", "offset")

    key: CompletionKey
    label = "portio.SendFile"

    #: The file: a `File`, a descriptor, or anything with ``fileno()``.
    file: Handle | int | HasFileno
    #: Where in the file to begin, in bytes.
    offset: int
    #: How many bytes; None: up to the end.
    count: int | None

    def __init__(
        self,
        key: CompletionKey,
        file: Handle | int | HasFileno,
        offset: int = 0,
        count: int | None = None,
    ) -> None:
        self.key = key
        self.file = file
        self.offset = offset
        self.count = count
        self._entry = None

    def _prepare_extended(self, port: UnqueuedOperations, token: int, mode: int) -> PreparedFully:
        key = self.key
        if (
            key._port is not port
            or not key._fits & numbers.STREAM_SOCKET
            or key._number() != key._descriptor
        ):
            raise unusable_key(self, port, "a stream socket")
        file = self.file
        descriptor = descriptor_of(file)
        offset = check_offset(self.offset)
        count = LARGEST if self.count is None else check_offset(self.count, "count")
        null = port._null
        entry = self, key, None, file, token, port, mode
        request = port._native, numbers.SENDFILE, mode, key._id, token, null, count, offset
        return (entry, request), (null, null, descriptor)


class _Sender:
    """Where the system puts the address that a message came from."""

    __slots__ = ("_port", "_scatter", "address", "size")

    def __init__(self, port: Engine, scatter: Any) -> None:
        self._port = port
        self._scatter = scatter
        self.address = port._ffi.new("char[]", addresses.SIZE)
        self.size = port._ffi.new("uint32_t *", addresses.SIZE)

    def settle(self, nbytes: int, error: int) -> tuple[int, tuple[int, Any]]:
        """The bytes, scattered if need be, and the address."""
        if self._scatter is not None:
            self._scatter(nbytes, error)
        raw = bytes(self._port._ffi.buffer(self.address))[: self.size[0]]
        return nbytes, (nbytes, addresses.decode(raw))


def _address(port: Engine, key: CompletionKey, address: object) -> tuple[CData, CData]:
    """The system's form of an address for the socket of `key`, and its size."""
    raw = addresses.encode(key._family, address)
    return port._from_buffer(port._chars, raw), port._ffi.new("uint32_t *", len(raw))
