"""Connections that come with their key: what settles an `AcceptKey`.

The descriptor that the system has given becomes a handle of the port, with a key, and
without an object of the socket module: that is made when somebody asks for it (keys.py).

It happens when the packet is taken, and like everything then it may be interrupted by a
signal, and is carried out anew for the same record (packets.py).  Nothing is undone then:
what has been done is known to what settles, which goes on from there.  That is the key,
whose `_port` is set last; what the engine has `opened`; and, of a connection that the
system does not let the port have, which is closed, and that is the accept's error, what
was `refused`.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from portio import accelerator
from portio.keys import CompletionKey
from portio.registry import identify, identity_of, registry

if TYPE_CHECKING:
    from portio.keys import AcceptingForm
    from portio.registry import Identity

__all__ = ["Adopting", "Refused", "adopt", "is_closed"]


class Refused(int):
    """The system's error, in the place of a result."""


class _Adopting:
    """Settles an accept whose connection becomes the port's."""

    __slots__ = ("form", "key", "listener", "opened", "port", "refused")

    def __init__(self, port: Any, listener: CompletionKey, form: AcceptingForm) -> None:
        self.port = port
        self.listener = listener
        self.form = form
        self.key: CompletionKey | None = None
        self.opened: Any = None  # a portio_handle, as soon as there is a key
        self.refused: list[Any] | None = None  # the error, and one item more when it is closed

    def __call__(self, nbytes: int, error: int) -> tuple[int, CompletionKey | Refused | None]:
        """The record's nbytes are the descriptor."""
        return 0, None if error else adopt(self, nbytes)


def adopt(settle: Any, descriptor: int) -> CompletionKey | Refused:
    """Makes an accepted `descriptor` a handle of the port.

    After an exception, a MemoryError or what a signal handler has raised, it goes on when it
    is called again.
    """
    port = settle.port
    with registry.lock:
        if settle.refused:
            return _refuse(settle, descriptor)
        if settle.key is None:
            settle.opened = port._ffi.new("portio_handle *")
            settle.key = CompletionKey()
        key: CompletionKey = settle.key
        opened = settle.opened
        if key._port is not None or key._closed:
            return key
        if not opened.id:
            if descriptor in registry.entries:
                _lose_holders(descriptor, identify(descriptor))
            refused = port._lib.portio_handle_adopt(
                port._native, settle.listener._id, descriptor, opened
            )
            # The key of a closed port has no handle there, and can be closed like others.
            if refused and refused != port._lib.PORTIO_CLOSED:
                if refused > port._lib.PORTIO_SYSTEM:
                    raise port._refusal(refused, "an accepted connection")
                settle.refused = [port._lib.PORTIO_SYSTEM - refused]
                return _refuse(settle, descriptor)
        identity = identity_of(opened) if opened.id else identify(descriptor)
        if identity in registry.sockets:
            _lose_holders(descriptor, identity)
        registry.add(descriptor, identity, key)
        key.attach_accepted(port, settle.form, descriptor, identity, opened)
        return key


def is_closed(settle: Any) -> bool:
    """Whether the connection has been refused, and closed."""
    return settle.refused is not None and len(settle.refused) > 1


def _refuse(settle: Any, descriptor: int) -> Refused:
    if not is_closed(settle):
        # In one step of C: no signal comes between the end of the descriptor and the list.
        settle.refused += map(socket.close, (descriptor,))
    return Refused(settle.refused[0])


def _lose_holders(descriptor: int, identity: Identity | None) -> None:
    """Drops what the registry has of a socket that is new: it was closed behind our back.

    An object that takes the number for its own still would close the new one with it.
    """
    holder, lost = registry.check(descriptor, identity)
    if holder is not None:
        registry.remove(holder._descriptor, holder)
        lost.append(holder)
    for key in lost:
        known = key._known()
        key.lose()
        if isinstance(known, socket.socket) and socket.SocketType.fileno(known) == descriptor:
            socket.SocketType.detach(known)


#: In C, if possible.
Adopting = accelerator.Adopting or _Adopting
