"""Completion keys: what a program knows a handle by.

A key ties three things together: a handle (a socket, a file, a pipe's end, a raw
descriptor), the port that it belongs to, and one object of the program's, which
comes back with every completion of the handle.  A *free* key has no handle; it
names a kind of posted packet.

Who owns what.  The key holds its handle and its port; the port does not hold the
key, pending operations do.  A key that is dropped without `close` gives the
handle back to the program, open.  `close` closes it.

Which order protects it.  A descriptor's number may be given out again the moment
it is closed, in any thread.  `close` therefore first takes the entry out of the
registry, then the number out of the Python object, in one step that tells whether it
still was the one that is known, and only then has the engine close it: at no time do
two parties believe that the number is theirs to close, whatever thread or signal
handler comes in between.  A handle that the program has closed itself is not closed
again; its number may belong to somebody else by now.

A key that came with its connection (adoption.py) has no object for its handle, but its
number alone, until somebody asks for `handle`: then the socket is made, under the
registry's lock, and is the one that owns the number from then on.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from operator import index
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from portio import accelerator, system
from portio.accelerator import KEY_HANDLE, KeyFields
from portio.files import Handle
from portio.registry import Identity, identify, registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self

    from portio.backends.native import CData
    from portio.engine import Engine
    from portio.port import Port

__all__ = ["AcceptingForm", "CompletionKey", "HandleLike", "HasFileno", "descriptor_of"]


#: Takes the number out of a socket: `socket.socket.detach` without its steps in Python.
_socket_detach = socket.SocketType.detach


class HasFileno(Protocol):
    """Anything with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


#: Class, family, type and protocol of the sockets that a listener accepts.
AcceptingForm: TypeAlias = "tuple[type[socket.socket], int, int, int]"
FORM = 4  # numbers in it

#: What can be associated with a port.
HandleLike: TypeAlias = "socket.socket | Handle | int | HasFileno"


def descriptor_of(handle: HandleLike) -> int:
    """The descriptor of `handle`; on Windows the HANDLE or SOCKET.

    Raises TypeError when it has none by its type, ValueError when it is closed.
    """
    if isinstance(handle, socket.socket):  # the usual case
        descriptor = index(handle.fileno())
    elif isinstance(handle, int):
        descriptor = index(handle)  # of a class of the program's, too, which compares as it likes
    elif callable(getattr(handle, "fileno", None)):
        descriptor = index(system.descriptor_getter(handle)())
    else:
        kind = type(handle).__name__
        raise TypeError(
            f"a socket, a portio file or pipe, or a descriptor is required, not {kind!r}"
        )
    if descriptor < 0:
        raise ValueError(f"{handle!r} is not open")
    return descriptor


class CompletionKey(KeyFields):
    """Names a handle of a port, or a kind of posted packet.

    ``CompletionKey(data)`` makes a free key, for `Port.post`; `Port.associate`
    makes the key of a handle.
    """

    __slots__ = ("__weakref__",)

    #: The program's own object for this handle; any time it may be another one.
    data: object
    #: What was associated; None for a free key, and after close or disassociation.  Of a
    #: connection that came with its key it is a socket, made when it is asked for first.
    handle: HandleLike | None

    _port: Port | None  # whose handle it is; None for a free key and after close
    _id: int  # the engine's name of the handle; 0 for a free key
    _fits: int  # a bit for the type of handle; operations know what they fit
    _family: int  # of a socket
    _message_based: bool  # datagrams and the like
    _number: Callable[[], int]  # what the handle says that its descriptor is
    _descriptor: int
    _identity: Identity | None
    _closed: bool
    _accepting: AcceptingForm | None  # what it accepts

    def __init__(self, data: object = None) -> None:
        self.data = data
        self.handle = None
        self._port = None
        self._id = 0
        self._fits = 0
        self._family = 0
        self._message_based = False
        self._descriptor = -1
        self._identity = None
        self._closed = False
        self._accepting = None

    def _absent(self, name: str) -> object:
        """What only a socket has that nobody has asked for yet."""
        if name == "_number":
            return self._descriptor.__index__
        if name == "handle":
            with registry.lock:
                self._make_handle()
            return KEY_HANDLE.__get__(self)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def port(self) -> Port | None:
        """The port of the handle; None for a free key, and after close or disassociation."""
        return self._port

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Cancels what is pending on the handle, and closes it.

        Each pending operation still completes, as a rule with
        `OperationCancelledError`, and its completion leaves the port as usual
        (timers are not the handle's, and go on).  The peer of a socket or a pipe
        sees the end of the stream at once.  Closing again does nothing; closing a
        free key only marks it.  The key of a port that is closed can still be
        closed, which then closes the handle.

        Raises RuntimeError in another thread than the owner of a thread-bound
        port that is open, and in a forked child; nothing is closed then.
        """
        port = self._port
        if port is not None and (port._forked or not port.closed):
            port._check_thread()
        known = self._known()
        # It may be the program's code that is asked, and raise: before anything is done.
        means = known is not None and _still_means(known, self._descriptor, self._identity)
        theirs: Callable[[], object] | None = None  # how an object of another class closes it
        if means and not isinstance(known, socket.socket | Handle | int):
            theirs = getattr(known, "close", None)
        handle: HandleLike | None = None
        taken: list[int] = []  # the number, when it is ours alone
        refused: list[int] = []
        ended = False
        try:
            with registry.lock:
                if self._closed:
                    return
                port, handle = self._port, self._known()
                if port is None or handle is None:
                    self._closed = True
                    self._port = self.handle = None
                    return
                registry.remove(self._descriptor, self)
                # Where sockets and files are not closed alike, the engine has told them apart.
                close: Callable[[int], object] = socket.close if self._family else system.close
                taking: Iterable[int] = ()
                file: Handle | None = None
                if not means or callable(theirs):
                    pass
                elif isinstance(handle, socket.socket):
                    taking = map(_socket_detach, (handle,))
                elif isinstance(handle, Handle):
                    file, taking = handle, (handle._descriptor,)
                    close = handle.close_descriptor
                else:
                    taking = (self._descriptor,)
                closing = map(port._lib.portio_handle_close, (port._native,), (self._id,))
                # From here to the engine there is no call: no signal handler and no thread comes
                # between the key, the object that has the number, and what is done about it.
                ended = self._closed = True
                self._port = self.handle = None
                taken += taking
                if file is not None:
                    file._descriptor = -1
        finally:
            if not ended or port is None:
                pass
            elif taken == [self._descriptor]:
                try:
                    refused += closing
                finally:
                    if refused != [0]:
                        close(self._descriptor)
            else:  # somebody else has closed it, or `theirs` will
                port._abandon(self._id)
        if isinstance(handle, socket.socket):
            handle.detach()  # it has no number any more; a class of the program's may do more
        elif callable(theirs):
            theirs()
        if refused and refused[0] not in (0, port._lib.PORTIO_CLOSED):
            raise port._refusal(refused[0], repr(self))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.inherited:
            self.close()

    def _dropped(self) -> None:
        """The end of a key that was not closed."""
        # It may run anywhere, so it takes no lock.
        try:
            port = self._port  # without a call, after which a signal handler might come
        except AttributeError:
            return
        if port is None:
            return
        try:
            self._make_handle()  # who is dropped with the key, and closes the connection
        except OSError:
            port._abandon(self._id)
            return
        except BaseException:  # a signal handler's: nobody else will come for the number
            self._make_handle()
            port._forget(self._id)
            raise
        if self.handle is None:
            return
        if _still_means(self.handle, self._descriptor, self._identity):
            port._forget(self._id)
        else:
            port._abandon(self._id)

    # ---- for the port and the registry ----

    @property
    def attached(self) -> bool:
        """Whether the handle belongs to a port that is open."""
        return self._port is not None and not self._port.closed

    @property
    def inherited(self) -> bool:
        """Whether its port is the parent's, and this a forked child."""
        return self._port is not None and self._port._forked

    def serves(self, port: Engine) -> bool:
        """Whether it may come with a packet of `port`: its own key, or a free one."""
        return not self._closed and (self._port is port or self._port is None)

    def means(self, descriptor: int) -> bool:
        """Whether the handle still is `descriptor`, as far as its object can tell."""
        known = self._known()
        return known is not None and _has_number(known, descriptor)

    def attach(
        self,
        port: Port,
        handle: HandleLike,
        data: object,
        descriptor: int,
        identity: Identity | None,
        opened: CData,
    ) -> None:
        """`port` has made `handle` its own; `opened` is the engine's portio_handle.

        It sets every field, so that the port needs no `__init__` for a key.
        """
        self.data = data
        self.handle = handle
        self._number = handle.fileno if isinstance(handle, socket.socket) else number_of(handle)
        self._accepting = None
        self._family = opened.family
        self._attach(port, descriptor, identity, opened)

    def attach_accepted(
        self,
        port: Port,
        form: AcceptingForm,
        descriptor: int,
        identity: Identity | None,
        opened: CData,
    ) -> None:
        """The same for a free key and a connection that nobody has an object for.

        `opened` is empty when the port was closed.  The key is that of a socket all the same,
        or operations would say that it is none, and not that the port is closed.
        """
        if not opened.id:
            is_stream = form[2] == socket.SOCK_STREAM
            lib = port._lib
            opened.type = lib.PORTIO_STREAM_SOCKET if is_stream else lib.PORTIO_DATAGRAM_SOCKET
        self.data = None
        with contextlib.suppress(AttributeError):
            del self.handle
        self._accepting = form
        self._family = form[1]
        self._attach(port, descriptor, identity, opened)

    def _attach(
        self, port: Port, descriptor: int, identity: Identity | None, opened: CData
    ) -> None:
        kind = opened.type
        self._descriptor = descriptor
        self._identity = identity
        self._id = opened.id
        self._fits = 1 << kind
        self._message_based = kind == port._lib.PORTIO_DATAGRAM_SOCKET
        self._closed = False
        self._port = port

    def _known(self) -> HandleLike | None:
        """The handle, or its number where there is no object for it."""
        try:
            handle: HandleLike | None = KEY_HANDLE.__get__(self)
        except AttributeError:
            if len(self._accepting or ()) != FORM:  # a signal has come as it was made
                with contextlib.suppress(OSError):
                    return self.handle
            return self._descriptor
        return handle

    def _make_handle(self) -> None:
        """Makes the socket of a connection that came with its key, if that is to be made.

        A signal may come at every step, and then they are carried out anew: whoever may own
        the number is the key's from before it does.  A signal handler or a destructor may also
        close the key; then the number is another's, and is given up again.  Raises OSError when
        the number was closed behind our back; it may be another's by now.
        """
        try:
            KEY_HANDLE.__get__(self)
        except AttributeError:
            form: Any = self._accepting
        else:
            return
        if len(form) == FORM:
            is_same = self._identity is None or identify(self._descriptor) == self._identity
            if self._port is None:
                return
            if not is_same:
                raise OSError(errno.EBADF, f"{self.label} was closed behind the back of its key")
            self._accepting = form = (*form, form[0].__new__(form[0]))
        *_, family, kind, protocol, made = form
        form = form[:FORM]
        try:
            socket.socket.__init__(made, family, kind, protocol, self._descriptor)
            number = made.fileno
        except OSError:
            _socket_detach(made)
            self._accepting = form
            if self._port is None:
                return
            raise
        finally:
            if self._port is None:
                _socket_detach(made)
        if self._port is not None:  # and no call from here on
            self._number = number
            self.handle = made
        self._accepting = form

    def lose(self) -> None:
        """The descriptor was closed behind our back, and its number is in use again."""
        port, self._port = self._port, None
        self._closed = True
        self.handle = None
        if port is not None:
            port._abandon(self._id)

    def detach(self) -> None:
        """The port has given the handle back: what is left is a free key."""
        self._port = None
        self.handle = None
        with contextlib.suppress(AttributeError):
            del self._number  # which has the handle, too
        self._id = 0
        self._fits = 0
        self._descriptor = -1
        self._accepting = None

    def accepting_form(self, made: type[socket.socket] = socket.socket) -> AcceptingForm:
        """What the sockets are that this one accepts.

        Who asks first says of which class they are `made`.
        """
        handle = self._known()  # first: it may have to be made, which is begun
        form = self._accepting
        if form is None:
            if isinstance(handle, socket.socket):
                form = made, handle.family, handle.type, handle.proto
            else:
                kind = socket.SOCK_SEQPACKET if self._message_based else socket.SOCK_STREAM
                form = made, self._family, kind, 0
            self._accepting = form
        return form

    @property
    def label(self) -> str:
        """A short name for the texts of errors."""
        if self._descriptor < 0:
            return "a free key"
        return f"descriptor {self._descriptor}"

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        what = "free" if self._descriptor < 0 else f"descriptor={self._descriptor}"
        return f"<CompletionKey {what}{state} data={self.data!r}>"


accelerator.install(CompletionKey, "close")
accelerator.stand_in(CompletionKey, __del__="_dropped", __getattr__="_absent")


def number_of(handle: HandleLike) -> Callable[[], int]:
    """A function that gives the descriptor of `handle` at any later time."""
    if isinstance(handle, int):
        return handle.__index__
    return system.descriptor_getter(handle)


def _has_number(handle: HandleLike, descriptor: int) -> bool:
    if isinstance(handle, int):
        return handle == descriptor
    try:
        if isinstance(handle, socket.socket):
            return handle.fileno() == descriptor
        return system.descriptor_getter(handle)() == descriptor
    except (OSError, ValueError):  # what closed files raise
        return False


def _still_means(handle: HandleLike, descriptor: int, identity: Identity | None) -> bool:
    """Whether `descriptor` still is what was associated.

    A socket and our own files know when they were closed; for other handles the
    system is asked.
    """
    if not _has_number(handle, descriptor):
        return False
    if isinstance(handle, socket.socket | Handle):
        return True
    return identify(descriptor) == identity
