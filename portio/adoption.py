"""Connections that come with their key: what settles an `AcceptKey`.

The descriptor that the system has given becomes a handle of the port, with a key, and
without an object of the socket module: that is made when somebody asks for it (keys.py).

It happens when the packet is taken, and like everything then it may be interrupted by a
signal, and is carried out anew for the same record (packets.py).  So the key is what
settles' own from the beginning, and `CompletionKey._port`, which is set last, tells
whether it has been done.  A connection that the system does not let the port have is
closed, and that is the accept's error: `refused`, which is set before.
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

__all__ = ["Adopting", "Refused", "adopt"]


class Refused(int):
    """The system's error, in the place of a result."""


class _Adopting:
    """Settles an accept whose connection becomes the port's."""

    __slots__ = ("form", "key", "listener", "port", "refused")

    def __init__(self, port: Any, listener: CompletionKey, form: AcceptingForm) -> None:
        self.port = port
        self.listener = listener
        self.form = form
        self.key: CompletionKey | None = None
        self.refused = 0

    def __call__(self, nbytes: int, error: int) -> tuple[int, CompletionKey | Refused | None]:
        """The record's nbytes are the descriptor."""
        return 0, None if error else adopt(self, nbytes)


def adopt(settle: Any, descriptor: int) -> CompletionKey | Refused:
    """Makes an accepted `descriptor` a handle of the port.

    Raises MemoryError, and then nothing has changed.
    """
    port = settle.port
    with registry.lock:
        if settle.refused:
            return Refused(settle.refused)
        key: CompletionKey | None = settle.key
        if key is None:
            key = settle.key = CompletionKey()
        if key._port is not None:
            return key
        if descriptor in registry.entries:
            _lose_holders(descriptor, identify(descriptor))
        opened = port._ffi.new("portio_handle *")
        try:
            refused = port._lib.portio_handle_adopt(
                port._native, settle.listener._id, descriptor, opened
            )
            if refused and refused != port._lib.PORTIO_CLOSED:
                return _refuse(settle, descriptor, refused)
            # The key of a closed port has no handle there, and can be closed like others.
            identity = identity_of(opened)
            if identity in registry.sockets:
                _lose_holders(descriptor, identity)
            registry.add(descriptor, identity, key)
            key.attach_accepted(port, settle.form, descriptor, identity, opened)
        except BaseException:
            if key._port is None and opened.id:
                registry.remove(descriptor, key)
                port._forget(opened.id)
            raise
        return key


def _lose_holders(descriptor: int, identity: Identity | None) -> None:
    """Drops what the registry has of a socket that is new: it was closed behind our back."""
    holder, stale = registry.check(descriptor, identity)
    for lost in stale:
        lost.lose()
    if holder is not None:
        registry.remove(holder._descriptor, holder)
        holder.lose()


def _refuse(settle: Any, descriptor: int, refused: int) -> Refused:
    port = settle.port
    if refused > port._lib.PORTIO_SYSTEM:
        raise port._refusal(refused, "an accepted connection")
    settle.refused = port._lib.PORTIO_SYSTEM - refused
    socket.close(descriptor)
    return Refused(settle.refused)


#: In C, if possible.
Adopting = accelerator.Adopting or _Adopting
