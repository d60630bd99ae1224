"""Pieces that the program keeps for a while, and lets go of in whichever thread (contract O20)."""

from __future__ import annotations

import random
import threading
from collections import deque
from typing import Any

import pytest

import portio
from support.system import WINE
from support.threads import Background
from support.watch import LIMIT, eventually

from .lanes import stream_pair
from .pieces import cancel, send

STREAMS = 10
PIECES = 60 if WINE else 300
STOP = portio.CompletionKey("stop")


class Stream:
    """One stream, what was sent, and what has come out of it."""

    def __init__(self, port: portio.Port, pool: portio.BufferPool, chance: random.Random) -> None:
        self.ours, self.peer = stream_pair(chance)
        self.peer.settimeout(LIMIT)
        self.receive = portio.RecvLent(port.associate(self.ours, self), pool)
        self.sent = bytearray()
        self.lock = threading.Lock()
        self.received = bytearray()
        self.over = False
        self.starts = self.ends = 0

    def start(self, port: portio.Port) -> None:
        self.starts += 1
        port.submit(self.receive)

    def enter(self, done: portio.Completion[Any]) -> memoryview | None:
        """A completion; its piece, if it has one."""
        with self.lock:
            self.ends += done.last
            if isinstance(done.error, portio.OperationCancelledError):
                return None
            piece: memoryview = done.result()
            self.received += piece
            self.over |= done.last
        return piece

    def check(self, *, ordered: bool) -> None:
        assert self.ends == self.starts
        if ordered:
            assert self.received == self.sent
        else:
            assert sorted(self.received) == sorted(self.sent)

    def close(self) -> None:
        self.receive.key.close()
        self.peer.close()


class Keeper:
    """Keeps pieces, a few at most, and shreds each when it lets go of it."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: deque[tuple[memoryview, bytes]] = deque()

    def keep(self, piece: memoryview, chance: random.Random) -> None:
        """Who has a piece is alone with it, whatever others receive."""
        self.kept.append((piece, bytes(piece)))
        while len(self.kept) > chance.randrange(self.most):
            self.let_go(chance)

    def let_go(self, chance: random.Random) -> None:
        try:
            piece, copy = self.kept.popleft()
        except IndexError:
            return
        assert piece == copy, "somebody else has written into a piece"
        piece[:] = bytes(len(piece))
        if chance.random() < 0.5:
            part = piece[: len(piece) // 2]
            piece.release()
            del part


def release(keeper: Keeper, chance: random.Random, stop: threading.Event) -> None:
    """Lets go of what others have kept."""
    while not stop.wait(0.0001):
        keeper.let_go(chance)


def fresh(chance: random.Random) -> random.Random:
    return random.Random(chance.random())


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("buffers", [1, 5, 40])
@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_one_taker(backend: str, rng: random.Random, kind: str, buffers: int) -> None:
    """The pieces go back in another thread half of the time."""
    with portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port:
        pool = portio.BufferPool(port, buffers, 64)
        streams = [Stream(port, pool, rng) for _ in range(STREAMS)]
        keeper, stop = Keeper(buffers + 1), threading.Event()
        left = set(streams)
        try:
            for stream in streams:
                stream.start(port)
            with (
                Background(send, streams, PIECES, fresh(rng)),
                Background(cancel, streams, fresh(rng), stop),
                Background(release, keeper, fresh(rng), stop),
            ):
                while left:
                    batch = port.get_many(rng.choice([1, 5, 64]), LIMIT)
                    assert batch, "a lost completion"
                    while batch:
                        done = batch.pop(0)
                        assert done.key is not None
                        stream = done.key.data  # type: ignore[assignment]
                        piece = stream.enter(done)
                        if done.last and not stream.over:
                            stream.start(port)
                        elif done.last:
                            left.discard(stream)
                        del done
                        if piece is not None:
                            keeper.keep(piece, rng)
                        del piece
                stop.set()
            for stream in streams:
                stream.check(ordered=True)
        finally:
            stop.set()
            for stream in streams:
                stream.close()


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("buffers", [2, 30])
def test_shared(backend: str, rng: random.Random, buffers: int) -> None:
    """Several takers, and a port that is closed while they have pieces."""
    kept = Keeper(buffers)
    with portio.Port(4, backend=backend) as port:
        pool = portio.BufferPool(port, buffers, 64)
        streams = [Stream(port, pool, rng) for _ in range(STREAMS)]

        def take(limit: int, chance: random.Random) -> None:
            while True:
                batch = port.get_many(limit)
                while batch:
                    done = batch.pop(0)
                    if done.key is STOP:
                        port.post(STOP)  # for the next one
                        return
                    assert done.key is not None
                    stream: Any = done.key.data
                    piece = stream.enter(done)
                    if done.last and piece is None:
                        stream.start(port)
                    del done
                    if piece is not None:
                        kept.keep(piece, chance)
                    del piece

        stop = threading.Event()
        try:
            for stream in streams:
                stream.start(port)
            takers = [Background(take, limit, fresh(rng)) for limit in (1, 1, 16)]
            with (
                Background(cancel, streams, fresh(rng), stop),
                Background(release, kept, fresh(rng), stop),
            ):
                send(streams, PIECES, fresh(rng))
                eventually(
                    lambda: all(
                        stream.over and len(stream.received) == len(stream.sent)
                        for stream in streams
                    ),
                    "every byte",
                    3 * LIMIT,
                )
                stop.set()
            port.post(STOP)
            for taker in takers:
                taker.result()
            for stream in streams:
                stream.check(ordered=False)
        finally:
            stop.set()
            for stream in streams:
                stream.close()


@pytest.mark.usefixtures("no_leak")
def test_closing(backend: str, rng: random.Random) -> None:
    """The port ends while pieces are in hand, on their way back, and not yet taken."""
    for _ in range(4 if WINE else 30):
        port = portio.Port(backend=backend, thread_bound=rng.random() < 0.5)
        pool = portio.BufferPool(port, rng.choice([1, 3, 9]), 16)
        streams = [Stream(port, pool, rng) for _ in range(6)]
        for stream in streams:
            stream.start(port)
            stream.peer.sendall(bytes(rng.randrange(1, 60)))
        held = []
        while (done := port.get(0)) is not None:
            held.append(done.result())
        del done
        stop = threading.Event()

        def let_go(
            held: list[memoryview] = held,
            stop: threading.Event = stop,
            chance: random.Random = fresh(rng),  # noqa: B008 (one for each round)
        ) -> None:
            while held and not stop.is_set():
                held.pop(chance.randrange(len(held)))

        with Background(let_go):
            port.close()
        assert not any(stream.receive.pending for stream in streams)
        for stream in streams:
            stream.close()
