"""Buffers: how a program's memory is handed to the system and held in place.

Ownership.  The memory stays the program's.  From `submit` until the completion
leaves the port the operation *pins* it: it holds the buffer through Python's
buffer protocol, so that it can be neither freed nor resized (BufferError) in
between, whatever the program drops.  A pin is a cffi object, and it ends when
the operation lets go of it.

- One buffer: any object with a contiguous buffer; it is not copied.  A bytes
  object needs no pin but a reference: it never moves and never changes.
- A sequence of buffers: each is pinned, and an array of `portio_vector` refers
  to them in order.  Any number of them, empty ones included.
- A datagram is one message, and the system takes at most `MOST_VECTORS` buffers
  for one.  Beyond that, a message to send is joined, and one to receive goes into
  a block that is scattered when it has arrived; nobody else notices.

What is refused, before anything starts: objects without a buffer (TypeError),
buffers that are not contiguous, and read-only ones for a receive (BufferError).

The operations pin a single buffer themselves, in one call of cffi; what is here
serves sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from portio.backends.native import CData, ForeignInterface

__all__ = ["MOST_VECTORS", "Block", "Buffers", "Vectors", "as_sequence"]

#: What an operation takes: one buffer, or a sequence of them.
Buffers: TypeAlias = "Buffer | Sequence[Buffer]"

#: The most buffers of one message: IOV_MAX of Linux (UIO_MAXIOV); longer
#: messages would be EMSGSIZE or EINVAL.  Streams and files have no such limit,
#: the engines take them in several steps.
MOST_VECTORS = 1024


def as_sequence(buffers: object, refused: TypeError) -> Sequence[Buffer]:
    """`buffers` when it is a sequence that may be one of buffers.

    For what cffi `refused` as a buffer; raises that error, in clearer words, when
    it is not a sequence either.
    """
    if isinstance(buffers, Sequence) and not isinstance(buffers, str):
        return buffers
    kind = type(buffers).__name__
    raise TypeError(
        f"a bytes-like object or a sequence of them is required, not {kind!r}"
    ) from refused


class Vectors:
    """Pinned buffers, and the array that refers to them."""

    __slots__ = ("_pins", "array", "count")

    def __init__(
        self, ffi: ForeignInterface, chars: CData, buffers: Iterable[Buffer], *, writable: bool
    ) -> None:
        """Pins every buffer; raises what the first bad one deserves, and pins none."""
        pins = []
        for at, buffer in enumerate(buffers):
            try:
                pins.append(ffi.from_buffer(chars, buffer, writable))
            except (BufferError, TypeError) as error:
                raise type(error)(f"buffer {at} of the sequence: {error}") from None
        self._pins = pins
        #: A portio_vector array, or NULL when there are no buffers.  The engine
        #: may change it as it works, so it serves for one submission.
        self.array = ffi.NULL
        if pins:
            self.array = ffi.new("portio_vector[]", [(pin, len(pin)) for pin in pins])
        #: Entries of the array.
        self.count = len(pins)


class Block:
    """One block that stands for many writable buffers, until it is scattered."""

    __slots__ = ("_block", "_views", "pin")

    def __init__(self, ffi: ForeignInterface, chars: CData, buffers: Iterable[Buffer]) -> None:
        """Pins every buffer and makes a block as large as all of them."""
        self._views = [memoryview(buffer).cast("B") for buffer in buffers]
        for view in self._views:
            if view.readonly:
                raise BufferError("Object is not writable.")
        self._block = bytearray(sum(map(len, self._views)))
        #: The pinned block, for the system.
        self.pin = ffi.from_buffer(chars, self._block, True)

    def settle(self, nbytes: int, error: int) -> tuple[int, int]:  # noqa: ARG002
        """Copies what has arrived to the buffers, in order; it may be called again."""
        rest = memoryview(self._block)[:nbytes]
        for view in self._views:
            if not rest:
                break
            part = rest[: len(view)]
            view[: len(part)] = part
            rest = rest[len(part) :]
        return nbytes, nbytes
