"""Operations on sockets.

Buffers are the caller's until submission and the operation's until completion;
see portio/buffers.py for what is accepted.  `flags` are the system's message
flags (``socket.MSG_…``), 0 as a rule.

Every constructor stores its arguments and no more; they are checked at
submission, which may be in another thread and more than once.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from portio import addresses
from portio.buffers import Block
from portio.keys import descriptor_of
from portio.operations.base import (
    LARGEST,
    SOCKETS,
    STREAM_SOCKETS,
    ExtendedRequest,
    Operation,
    Request,
    Transfer,
    check_flags,
    check_offset,
    unusable_key,
)

if TYPE_CHECKING:
    from portio.addresses import Address
    from portio.backends.native import CData
    from portio.buffers import Buffers
    from portio.files import Handle
    from portio.keys import CompletionKey, HasFileno
    from portio.port import Port

_DIRECTIONS = {socket.SHUT_RD: 0, socket.SHUT_WR: 1, socket.SHUT_RDWR: 2}

__all__ = ["Accept", "Connect", "Recv", "RecvFrom", "Send", "SendFile", "SendTo", "Shutdown"]


class Accept(Operation["socket.socket"]):
    """Takes the next connection of a listening socket.

    The result is a new socket with the listener's family and type.  It is not
    inheritable and not associated, and from the moment that the completion leaves
    the port it is the program's to close.
    """

    __slots__ = ("_accepted", "_form")

    key: CompletionKey
    label = "portio.Accept"
    _handles = SOCKETS
    _settles = True
    _moves = False  # they are the new socket's descriptor

    def __init__(self, key: CompletionKey) -> None:
        self.key = key
        self._token = 0

    def _prepare(self, port: Port) -> Request:
        key = self.key
        if key._port is not port or not key._fits & self._fits:
            raise unusable_key(self, port)
        # Made now: one made by _settle could be lost, and its connection with it,
        # when a signal interrupts there.
        self._accepted = socket.socket.__new__(socket.socket)
        self._form = key.accepting_form()
        self._pin = None
        return key._id, 0, port._null, 0, 0

    def _settle(self, nbytes: int, status: int) -> socket.socket:
        accepted = self._accepted
        if not status:
            family, kind, protocol = self._form
            # __init__ only stores the descriptor: repeating it does no harm.
            socket.socket.__init__(accepted, family, kind, protocol, fileno=nbytes)
        return accepted


class Connect(Operation[None]):
    """Connects a socket.

    `address` is numeric, in the form of the socket's family; a host name is a
    ValueError at submission, because resolving one would block.
    """

    __slots__ = ("address",)

    key: CompletionKey
    label = "portio.Connect"
    _handles = SOCKETS
    _extended = True
    _settles = True

    #: Where to.
    address: Address

    def __init__(self, key: CompletionKey, address: Address) -> None:
        self.key = key
        self.address = address
        self._token = 0

    def _prepare_extended(self, port: Port) -> ExtendedRequest:
        key = self.key
        if key._port is not port or not key._fits & self._fits:
            raise unusable_key(self, port)
        self._pin = address, length = _address(port, key, self.address)
        return key._id, 0, port._null, 0, 0, address, length, 0

    def _settle(self, nbytes: int, status: int) -> None:
        return None


class Recv(Transfer[int]):
    """Receives what is there, at least one byte; the result is how many.

    0 means the end of the stream, or an empty datagram.  With an empty buffer on
    a stream it completes when there is something to read, and takes nothing.

    Raises at submission: BufferError for a read-only buffer.
    """

    __slots__ = ("_settles", "buffer", "flags")

    key: CompletionKey
    label = "portio.Recv"
    _handles = SOCKETS

    #: Where to put it: a writable buffer, or a sequence of them.
    buffer: Buffers
    #: Message flags.
    flags: int

    def __init__(self, key: CompletionKey, buffer: Buffers, flags: int = 0) -> None:
        self.key = key
        self.buffer = buffer
        self.flags = flags
        self._token = 0
        self._settles = False

    def _prepare(self, port: Port) -> Request:
        key = self.key
        if key._port is not port or not key._fits & self._fits:
            raise unusable_key(self, port)
        flags = 0 if self.flags == 0 else check_flags(self.flags)
        try:
            pin = self._pin = port._from_buffer(port._chars, self.buffer, True)
        except TypeError as refused:
            form, pin, length = self._pin_sequence(port, self.buffer, True, refused)
            self._settles = isinstance(self._pin, Block)
            return key._id, form, pin, length, flags
        return key._id, 0, pin, len(pin), flags

    def _settle(self, nbytes: int, status: int) -> int:
        if isinstance(self._pin, Block):
            self._pin.scatter(self._port._ffi, nbytes)
        self._settles = False
        return nbytes


class Send(Transfer[int]):
    """Sends every byte; the result is how many.

    On a stream it completes when all are handed over, or with an error whose
    completion says how many were.  On a datagram socket it is one message.
    """

    __slots__ = ("buffer", "flags")

    key: CompletionKey
    label = "portio.Send"
    _handles = SOCKETS

    #: What to send: a buffer, or a sequence of them.
    buffer: Buffers
    #: Message flags.
    flags: int

    def __init__(self, key: CompletionKey, buffer: Buffers, flags: int = 0) -> None:
        self.key = key
        self.buffer = buffer
        self.flags = flags
        self._token = 0

    def _prepare(self, port: Port) -> Request:
        key = self.key
        if key._port is not port or not key._fits & self._fits:
            raise unusable_key(self, port)
        flags = 0 if self.flags == 0 else check_flags(self.flags)
        buffer = self.buffer
        if buffer.__class__ is bytes:
            self._pin = buffer
            return key._id, 0, buffer, len(buffer), flags
        try:
            pin = self._pin = port._from_buffer(port._chars, buffer)
        except TypeError as refused:
            form, pin, length = self._pin_sequence(port, buffer, False, refused)
            return key._id, form, pin, length, flags
        return key._id, 0, pin, len(pin), flags


class RecvFrom(Transfer["tuple[int, Any]"]):
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
    _handles = SOCKETS
    _extended = True
    _settles = True

    #: Where to put it: a writable buffer, or a sequence of them.
    buffer: Buffers
    #: Message flags.
    flags: int

    def __init__(self, key: CompletionKey, buffer: Buffers, flags: int = 0) -> None:
        self.key = key
        self.buffer = buffer
        self.flags = flags
        self._token = 0

    def _prepare_extended(self, port: Port) -> ExtendedRequest:
        key = self.key
        if key._port is not port or not key._fits & self._fits:
            raise unusable_key(self, port)
        flags = 0 if self.flags == 0 else check_flags(self.flags)
        form = 0
        try:
            pin = self._pin = port._from_buffer(port._chars, self.buffer, True)
            length = len(pin)
        except TypeError as refused:
            form, pin, length = self._pin_sequence(port, self.buffer, True, refused)
        address = port._ffi.new("char[]", addresses.SIZE)
        size = port._ffi.new("uint32_t *", addresses.SIZE)
        self._pin = _Message(self._pin, address, size)
        return key._id, form, pin, length, flags, address, size, 0

    def _settle(self, nbytes: int, status: int) -> tuple[int, Any]:
        message: _Message = self._pin
        if isinstance(message.content, Block):
            message.content.scatter(self._port._ffi, nbytes)
        raw = bytes(self._port._ffi.buffer(message.address))[: message.size[0]]
        return nbytes, addresses.decode(raw)


class SendTo(Transfer[int]):
    """Sends one message to `address`; the result is its size.

    `address` is numeric, in the form of the socket's family; a host name is a
    ValueError at submission.
    """

    __slots__ = ("address", "buffer", "flags")

    key: CompletionKey
    label = "portio.SendTo"
    _handles = SOCKETS
    _extended = True

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
        self._token = 0

    def _prepare_extended(self, port: Port) -> ExtendedRequest:
        key = self.key
        if key._port is not port or not key._fits & self._fits:
            raise unusable_key(self, port)
        flags = 0 if self.flags == 0 else check_flags(self.flags)
        address, size = _address(port, key, self.address)
        form = 0
        try:
            pin = self._pin = port._from_buffer(port._chars, self.buffer)
            length = len(pin)
        except TypeError as refused:
            form, pin, length = self._pin_sequence(port, self.buffer, False, refused)
        self._pin = self._pin, address, size
        return key._id, form, pin, length, flags, address, size, 0


class Shutdown(Operation[None]):
    """Ends one direction of a connection, or both.

    `how` is ``socket.SHUT_WR``, ``SHUT_RD`` or ``SHUT_RDWR``.  The sending
    direction ends after the sends that were submitted before.
    """

    __slots__ = ("how",)

    key: CompletionKey
    label = "portio.Shutdown"
    _handles = SOCKETS
    _settles = True

    #: What to end.
    how: int

    def __init__(self, key: CompletionKey, how: int = socket.SHUT_WR) -> None:
        self.key = key
        self.how = how
        self._token = 0

    def _prepare(self, port: Port) -> Request:
        key = self.key
        if key._port is not port or not key._fits & self._fits:
            raise unusable_key(self, port)
        try:
            argument = _DIRECTIONS[self.how]
        except (KeyError, TypeError):
            raise ValueError(
                f"how must be SHUT_RD, SHUT_WR or SHUT_RDWR, not {self.how!r}"
            ) from None
        self._pin = None
        return key._id, 0, port._null, 0, argument

    def _settle(self, nbytes: int, status: int) -> None:
        return None


class SendFile(Operation[int]):
    """Sends a part of a file; the result is how many bytes.

    `count` None sends up to the end of the file; it also completes there when
    `count` is larger.  The bytes do not pass through Python.  The file's own
    position is neither used nor changed, and the file need not belong to a port.
    The operation keeps `file` alive; a program that closes it, or a descriptor
    given as an int, before the completion, has a bug.
    """

    __slots__ = ("count", "file", "offset")

    key: CompletionKey
    label = "portio.SendFile"
    _handles = STREAM_SOCKETS
    _extended = True

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
        self._token = 0

    def _prepare_extended(self, port: Port) -> ExtendedRequest:
        key = self.key
        if key._port is not port or not key._fits & self._fits:
            raise unusable_key(self, port)
        file = self.file
        descriptor = descriptor_of(file)
        offset = check_offset(self.offset)
        count = LARGEST if self.count is None else check_offset(self.count, "count")
        self._pin = file
        return key._id, 0, port._null, count, offset, port._null, port._null, descriptor


class _Message(NamedTuple):
    """What a pending RecvFrom keeps in place."""

    content: Any  # the pin of the buffers
    address: CData
    size: CData


def _address(port: Port, key: CompletionKey, address: object) -> tuple[CData, CData]:
    """The system's form of an address for the socket of `key`, and its size."""
    raw = addresses.encode(key._family, address)
    return port._from_buffer(port._chars, raw), port._ffi.new("uint32_t *", len(raw))
