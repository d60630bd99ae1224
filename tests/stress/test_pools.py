"""Receives that share a pool too small for them, against cancel, close and several takers."""

from __future__ import annotations

import random
import threading

import pytest

import portio
from support.system import WINE
from support.threads import Background
from support.watch import LIMIT, eventually

from .lanes import stream_pair
from .pieces import cancel, send

STREAMS = 12
PIECES = 60 if WINE else 400
STOP = portio.CompletionKey("stop")


class Stream:
    """One stream, and what has come out of it."""

    def __init__(self, port: portio.Port, pool: portio.BufferPool, chance: random.Random) -> None:
        self.ours, self.peer = stream_pair(chance)
        self.peer.settimeout(LIMIT)
        self.receive = portio.RecvMultishot(port.associate(self.ours, self), pool)
        self.lock = threading.Lock()
        self.sent = bytearray()
        self.pieces: list[bytes] = []
        self.submitted = 0
        self.ends = 0
        self.over = False  # the end of the stream has come
        self.errors: list[str] = []

    @property
    def received(self) -> int:
        with self.lock:
            return sum(map(len, self.pieces))

    def start(self, port: portio.Port) -> None:
        self.submitted += 1
        port.submit(self.receive)

    def enter(self, done: portio.Completion[bytes]) -> bool:
        """A completion; true: the operation was cancelled."""
        cancelled = isinstance(done.error, portio.OperationCancelledError)
        with self.lock:
            self.ends += done.last
            if done.error is None:
                self.pieces.append(done.result())
                self.over |= done.last
            elif not cancelled:
                self.errors.append(repr(done.error))
        return cancelled

    def check(self, *, ordered: bool) -> None:
        """Every byte has come out, once."""
        assert not self.errors
        assert self.ends == self.submitted
        assert not self.receive.pending
        received = b"".join(self.pieces)
        if ordered:
            assert received == self.sent
        else:  # consecutive pieces may have been in the hands of two threads
            assert sorted(received) == sorted(self.sent)

    def close(self) -> None:
        self.receive.key.close()
        self.ours.close()
        self.peer.close()


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("buffers", [1, 4, 50])
def test_shared(backend: str, rng: random.Random, buffers: int) -> None:
    with portio.Port(4, backend=backend) as port:
        pool = portio.BufferPool(port, buffers, 64)
        streams = [Stream(port, pool, rng) for _ in range(STREAMS)]

        def take(limit: int) -> None:
            over = False
            while not over:
                for done in port.get_many(limit):
                    if done.key is STOP:
                        over = True
                        continue
                    assert done.key is not None
                    stream = done.key.data
                    assert isinstance(stream, Stream)
                    if stream.enter(done):
                        stream.start(port)
            port.post(STOP)  # for the next one

        stop = threading.Event()
        try:
            for stream in streams:
                stream.start(port)
            takers = [Background(take, limit) for limit in (1, 1, 16)]
            senders = [
                Background(send, own, PIECES, random.Random(rng.random()))
                for own in (streams[0::2], streams[1::2])
            ]
            with Background(cancel, streams, random.Random(rng.random()), stop):
                for sender in senders:
                    sender.result(LIMIT * 3)
                stop.set()
            eventually(lambda: all(stream.over for stream in streams), "the ends")
            eventually(
                lambda: all(stream.received == len(stream.sent) for stream in streams),
                "every byte",
            )
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
@pytest.mark.parametrize("buffers", [2, 50])
@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_one_taker(backend: str, rng: random.Random, kind: str, buffers: int) -> None:
    """The order of each stream is that of its completions."""
    with portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port:
        pool = portio.BufferPool(port, buffers, 64)
        streams = [Stream(port, pool, rng) for _ in range(STREAMS)]
        stop = threading.Event()
        open_streams = set(streams)
        try:
            for stream in streams:
                stream.start(port)
            with (
                Background(send, streams, PIECES, random.Random(rng.random())),
                Background(cancel, streams, random.Random(rng.random()), stop),
            ):
                while open_streams:
                    batch = port.get_many(rng.choice([1, 5, 64]), LIMIT)
                    assert batch, "a lost completion"
                    for done in batch:
                        assert done.key is not None
                        stream = done.key.data
                        assert isinstance(stream, Stream)
                        if stream.enter(done):
                            stream.start(port)
                        elif done.last:
                            open_streams.discard(stream)
                stop.set()
            for stream in streams:
                stream.check(ordered=True)
        finally:
            stop.set()
            for stream in streams:
                stream.close()


@pytest.mark.usefixtures("no_leak")
def test_closing(backend: str, rng: random.Random) -> None:
    """Keys and then the port close, with receives in every state."""
    for _ in range(4 if WINE else 30):
        with portio.Port(4, backend=backend) as port:
            pool = portio.BufferPool(port, rng.choice([1, 3]), 16)
            streams = [Stream(port, pool, rng) for _ in range(8)]
            for stream in streams:
                stream.start(port)
                stream.peer.sendall(bytes(rng.randrange(100)))

            def take(port: portio.Port) -> None:
                for done in port:
                    assert done.key is not None
                    assert isinstance(done.key.data, Stream)
                    done.key.data.enter(done)

            takers = [Background(take, port) for _ in range(2)]
            for stream in rng.sample(streams, 4):
                stream.receive.key.close()
            port.close()
            for taker in takers:
                taker.result()
            for stream in streams:
                assert not stream.receive.pending
                assert not stream.errors
                stream.close()
