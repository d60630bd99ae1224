"""Sockets: streams and listeners."""

from __future__ import annotations

import errno
import socket as sockets  # `socket` is an attribute and an argument here
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload
from weakref import ref

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from portio.errors import PortClosedError
from portio.operations import Accept, Recv, Send, Shutdown
from portio.trio.streams import Receiving, Resource, Sending

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Buffer

    from portio.trio.ports import TrioPort

__all__ = ["FAILED_EARLY", "SocketListener", "SocketStream", "adopt", "taken_over"]

#: What accepting may say of a connection that has failed already, or that the firewall
#: forbids: nothing of the listener.  The list is trio's, as the names are not the same
#: on every system.
FAILED_EARLY = {
    getattr(errno, name)
    for name in (
        *("EPERM", "ECONNABORTED", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET"),
        *("EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "ENOSR", "ESOCKTNOSUPPORT"),
        *("EPROTONOSUPPORT", "ETIMEDOUT", "ECONNRESET"),
    )
    if hasattr(errno, name)
}

_NOTSENT_LOWAT: int | None = getattr(sockets, "TCP_NOTSENT_LOWAT", None)  # not on Windows


class _Held(sockets.socket):
    """The socket of a stream or a listener: to close it is to close that.

    As with trio's: who waits is told.  Nobody would be, if the number was closed behind
    the port's back.
    """

    __slots__ = ("_holder",)

    @classmethod
    def of(cls, given: sockets.socket) -> _Held:
        """The same socket: until `take` or `detach`, the number is that of both."""
        return cls(given.family, given.type, given.proto, fileno=given.fileno())

    def serve(self, holder: Owner) -> None:
        """From now on it is the socket of `holder`, which is not kept alive by it."""
        self._holder = ref(holder)

    def take(self, given: sockets.socket, holder: Owner) -> None:
        """Takes it from `given`, for `holder`."""
        given.detach()
        self.serve(holder)
        if self.gettimeout() != given.gettimeout():
            self.settimeout(given.gettimeout())

    def close(self) -> None:
        """Closes the stream or listener, and raises what its `close` raises."""
        holder = self._holder() if hasattr(self, "_holder") else None  # a duplicate has none
        if holder is not None and self.fileno() >= 0:
            holder.close()
        super().close()


class Owner(Resource):
    """What takes a socket over."""

    #: The socket.  Only for what does not wait: names, options.  Closing it closes its
    #: owner, and tasks that wait are told.
    socket: sockets.socket

    @enable_ki_protection  # until it is taken, the number is that of two objects
    def __init__(self, socket: sockets.socket, on: TrioPort | None) -> None:
        self.socket = held = _Held.of(socket)
        try:
            super().__init__(held, on)
        except BaseException:
            held.detach()
            raise
        held.take(socket, self)


class SocketStream(Owner, Sending, Receiving, trio.abc.HalfCloseableStream):
    """A connected stream socket.

    `socket` is one of the `socket` module, and is taken over: the object that was given is
    empty afterwards, as after `socket.socket.detach`.  `on` is the port to use; None: that
    of the run.  As trio does, it sets TCP_NODELAY, and TCP_NOTSENT_LOWAT where there is
    that.

    Raises TypeError and ValueError for what is no stream socket, and what
    `Port.associate` raises.
    """

    _send_type = Send

    def __init__(self, socket: sockets.socket, *, on: TrioPort | None = None) -> None:
        _check_stream(socket, type(self))
        super().__init__(socket, on)
        self._prepare_socket()

    @classmethod
    def _of(cls, accepted: _Held, on: TrioPort) -> Self:
        """What owns a socket that nobody else knows; closes it when that fails."""
        self = cls.__new__(cls)
        try:
            super(Owner, self).__init__(accepted, on)
            self.socket = accepted
            accepted.serve(self)
            self._prepare_socket()
        except BaseException:
            accepted.close()
            raise
        return self

    def _prepare_socket(self) -> None:
        try:
            self.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
            if _NOTSENT_LOWAT is not None:
                self.setsockopt(sockets.IPPROTO_TCP, _NOTSENT_LOWAT, 2**14)
        except OSError:  # no TCP
            pass

    def _make_receive(self) -> Recv:
        return Recv(self._key, b"")

    @enable_ki_protection
    async def send_eof(self) -> None:
        """Tells the peer that nothing more will come; doing so again does nothing.

        Raises what `send_all` raises.
        """
        if self._eof_sent and not self._closed:
            await checkpoint()
            return
        done = await self._send_one(Shutdown(self._key, sockets.SHUT_WR))
        if done.error is not None:
            raise self._failure(done)
        self._eof_sent = True

    @overload
    def setsockopt(self, level: int, option: int, value: int | Buffer) -> None: ...

    @overload
    def setsockopt(self, level: int, option: int, value: None, length: int) -> None: ...

    def setsockopt(
        self, level: int, option: int, value: int | Buffer | None, length: int | None = None
    ) -> None:
        """Sets an option of the socket, as `socket.socket.setsockopt` does."""
        if length is not None:
            if value is not None:
                raise TypeError(f"with a length the value must be None, not {value!r}")
            self.socket.setsockopt(level, option, None, length)
        elif value is None:
            raise TypeError("the value may be None only with a length")
        else:
            self.socket.setsockopt(level, option, value)

    @overload
    def getsockopt(self, level: int, option: int) -> int: ...

    @overload
    def getsockopt(self, level: int, option: int, buffersize: int) -> bytes: ...

    def getsockopt(self, level: int, option: int, buffersize: int = 0) -> int | bytes:
        """Gives an option of the socket, as `socket.socket.getsockopt` does."""
        if buffersize == 0:
            return self.socket.getsockopt(level, option)
        return self.socket.getsockopt(level, option, buffersize)

    def __repr__(self) -> str:
        return f"<portio.trio.SocketStream {self.socket!r}>"


class SocketListener(Owner, trio.abc.Listener[SocketStream]):
    """A listening stream socket.

    `socket` is one of the `socket` module, on which ``listen`` was called, and is taken
    over, as by a `SocketStream`.  `on` is the port to use, also for the connections; None:
    that of the run.

    Raises TypeError and ValueError for what is no listening socket, and what
    `Port.associate` raises.
    """

    _receiving = True  # by any number of tasks; nobody counts them

    def __init__(self, socket: sockets.socket, *, on: TrioPort | None = None) -> None:
        _check_stream(socket, type(self))
        if not _listens(socket):
            raise ValueError("SocketListener requires a listening socket")
        super().__init__(socket, on)
        self._key.accepting_form(_Held)
        self._patient = True  # whether the next connection is likely to be still on its way

    @enable_ki_protection
    async def accept(self) -> SocketStream:
        """Waits for a connection.

        Any number of tasks may.  If it is cancelled, no connection was taken.  One that
        has failed before it could be taken is passed over, as trio does it.

        Raises `trio.ClosedResourceError`, and the OSErrors that the system gives for a
        lack of descriptors or memory; `trio.serve_listeners` knows how to treat them.
        """
        while True:
            if self._closed:
                await self._refuse()
            port = self._port
            sleeps, patient = port.sleeps, self._patient
            try:
                done = await port.complete(Accept(self._key), patient=patient)
                # Connections come in bursts.  If the loop slept for this one although it was
                # not told to, it had to wait, and so will the next.  If it was told to, nobody
                # knows: then the next one tries.
                self._patient = port.sleeps != sleeps and not patient
                if done.error is None:
                    return SocketStream._of(cast("_Held", done.result()), port)
            except (PortClosedError, ValueError) as error:
                await self._refused(error)
            assert done.error is not None
            if done.error.errno in FAILED_EARLY:
                continue
            failure = self._failure(done)
            raise failure if isinstance(failure, trio.ClosedResourceError) else done.error

    def __repr__(self) -> str:
        return f"<portio.trio.SocketListener {self.socket!r}>"


def _check_stream(sock: Any, needed_by: type) -> None:
    name = needed_by.__name__
    if not isinstance(sock, sockets.socket):
        raise TypeError(f"{name} requires a socket of the socket module, not {sock!r}")
    if sock.type != sockets.SOCK_STREAM:
        raise ValueError(f"{name} requires a SOCK_STREAM socket, not {sock!r}")


def _listens(sock: sockets.socket) -> bool:
    try:
        return bool(sock.getsockopt(sockets.SOL_SOCKET, sockets.SO_ACCEPTCONN))
    except OSError:  # where the system cannot tell, accepting will
        return True


def taken_over(theirs: trio.socket.SocketType) -> sockets.socket:
    """A socket of the `socket` module in place of trio's, which is no socket any more."""
    family, kind, protocol = theirs.family, theirs.type, theirs.proto
    ours = sockets.socket(family, kind, protocol, fileno=theirs.detach())
    ours.setblocking(True)
    return ours


_R = TypeVar("_R", SocketStream, SocketListener)


def adopt(kind: type[_R], sock: sockets.socket, port: TrioPort) -> _R:
    """A stream or a listener of a socket that nobody else knows; closes it when that fails."""
    try:
        return kind(sock, on=port)
    except BaseException:
        sock.close()
        raise
