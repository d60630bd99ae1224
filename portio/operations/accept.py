"""Accepting connections.

An accept is settled when its completion leaves the port: the descriptor that the system
has given becomes a socket object, or the key of a handle of the port (adoption.py).
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, TypeVar

from portio.accelerator import AcceptFields, Accepting, AcceptKeyFields
from portio.adoption import Adopting
from portio.operations import numbers
from portio.operations.base import QUEUED, Operation, Prepared, unusable_key

if TYPE_CHECKING:
    from portio.keys import AcceptingForm, CompletionKey
    from portio.operations.base import Entry
    from portio.unqueued import UnqueuedOperations

__all__ = ["Accept", "AcceptKey", "AnyAccept"]

T = TypeVar("T")


class AnyAccept(Operation[T]):
    """What accepts have in common, whatever becomes of a connection."""

    __slots__ = ()

    key: CompletionKey
    _brief = True

    #: Whether it takes connections until it is ended.
    multishot: bool

    def _settling(self, key: CompletionKey, port: UnqueuedOperations) -> Any:
        """What turns a descriptor into the result."""
        raise NotImplementedError

    def _prepare(self, port: UnqueuedOperations, token: int, mode: int) -> Prepared:
        key = self.key
        if (
            key._port is not port
            or not key._fits & numbers.SOCKETS
            or key._number() != key._descriptor
        ):
            raise unusable_key(self, port, "a socket")
        entry = self, key, self._settling(key, port), None, token, port, mode
        flags = mode
        if self.multishot:
            flags |= numbers.MULTISHOT
            if mode != QUEUED:
                raise ValueError("a multishot operation is neither quiet nor queued=False")
        request = port._native, numbers.ACCEPT, flags, key._id, token, port._null, 0, 0
        return entry, request

    def _next_turn(self, entry: Entry, token: int) -> Entry:
        _, key, _, _, _, port, mode = entry
        assert key is not None
        return self, key, self._settling(key, port), None, token, port, mode


class Accept(AcceptFields, AnyAccept["socket.socket"]):
    """Takes the next connection of a listening socket.

    The result is a new socket with the listener's family and type.  It is not
    inheritable and not associated, and from the moment that the completion leaves
    the port it is the program's to close.

    With `multishot` one submission takes one connection after the other, and gives a
    completion for each, until an error or `cancel` ends it: that is its last completion
    (`Completion.last`), and until then the operation is pending.  The next connection is
    taken when the completion before has left the port; what comes meanwhile waits in
    the listener's backlog.  Such an operation is neither quiet nor submitted with
    ``queued=False``: ValueError.
    """

    __slots__ = ()

    label = "portio.Accept"

    def __init__(self, key: CompletionKey, *, multishot: bool = False) -> None:
        self.key = key
        self.multishot = multishot
        self._entry = None

    def _settling(self, key: CompletionKey, port: UnqueuedOperations) -> Any:  # noqa: ARG002
        """A socket that can not be lost.

        The object exists from the submission on, as the `socket` of what settles.  If a
        signal interrupts the port right after it got its descriptor, it is not collected, and
        its connection not closed; it is settled again, and storing the same descriptor does no
        harm.
        """
        return (Accepting or _Accepting)(key.accepting_form())  # in C, if possible


class AcceptKey(AcceptKeyFields, AnyAccept["CompletionKey"]):
    """Takes the next connection of a listening socket, as a handle of the same port.

    The result is the connection's `CompletionKey`, with None as its `data`: what an `Accept`
    and `Port.associate` give together, for less.  The key's `handle`, a socket object, is
    made when it is asked for.  From the moment that the completion leaves the port the key is
    the program's to close; one that is dropped instead closes the connection.

    `multishot` is as for `Accept`.  A connection that the system does not let the port have is
    closed, and its error comes with the completion; that is not the end of a multishot accept.
    """

    __slots__ = ()

    label = "portio.AcceptKey"

    def __init__(self, key: CompletionKey, *, multishot: bool = False) -> None:
        self.key = key
        self.multishot = multishot
        self._entry = None

    def _settling(self, key: CompletionKey, port: UnqueuedOperations) -> Any:
        return Adopting(port, key, key.accepting_form())


class _Accepting:
    """Settles an accept."""

    __slots__ = ("_form", "socket")

    def __init__(self, form: AcceptingForm) -> None:
        self._form = form
        self.socket = form[0].__new__(form[0])

    def __call__(self, nbytes: int, error: int) -> tuple[int, socket.socket | None]:
        """The record's nbytes are the descriptor."""
        if error:
            return 0, None
        _, family, kind, protocol = self._form
        socket.socket.__init__(self.socket, family, kind, protocol, nbytes)
        return 0, self.socket
