"""What streams have in common whose receives go on, with a pool: their senders, and who cancels."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Sequence
from typing import Any, Protocol


class PooledStream(Protocol):
    """One stream: its receive, its peer, and what was sent."""

    @property
    def receive(self) -> Any:
        """The operation."""

    @property
    def peer(self) -> socket.socket:
        """The other end."""

    @property
    def sent(self) -> bytearray:
        """All of it, so far."""


def send(streams: Sequence[PooledStream], pieces: int, chance: random.Random) -> None:
    """Pieces of all sizes, and then the ends."""
    for _ in range(pieces):
        for stream in streams:
            piece = chance.randbytes(chance.choice([1, 7, 64, 65, 300]))
            stream.sent.extend(piece)
            stream.peer.sendall(piece)
    for stream in streams:
        stream.peer.shutdown(socket.SHUT_WR)


def cancel(streams: Sequence[PooledStream], chance: random.Random, stop: threading.Event) -> None:
    """Now and then one of them; who takes its last completion submits it again."""
    while not stop.wait(0.0005):
        chance.choice(streams).receive.cancel()
