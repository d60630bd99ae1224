"""Descriptor numbers that many threads open, associate and close at the same time."""

from __future__ import annotations

import gc
import random
import socket
import threading
import time

import pytest

import portio
from support.net import recv_exactly
from support.system import WINE
from support.threads import Background
from support.watch import LIMIT, eventually

LIVES = 1500
THREADS = 4


class Life:
    """One use of a descriptor."""

    def __init__(self, tag: bytes) -> None:
        self.tag = tag
        self.taken = threading.Event()
        self.expects_data = False


class Hello(portio.Recv):
    """A receive that knows whom it was meant for."""

    def __init__(self, key: portio.CompletionKey, life: Life) -> None:
        super().__init__(key, bytearray(16))
        self.life = life


@pytest.mark.usefixtures("no_leak")
def test_descriptor_reuse(backend: str, rng: random.Random) -> None:
    """Each completion says what was meant for the life of its own handle."""
    errors: list[str] = []
    stop = portio.CompletionKey("stop")
    with portio.Port(4, backend=backend) as port:

        def live(number: int, chance: random.Random) -> None:
            for index in range(LIVES):
                life = Life(b"%d-%d" % (number, index))
                ours, peer = socket.socketpair()
                key = port.associate(ours, life)
                way = chance.choice(["data", "close", "race", "idle", *["hand"][WINE:]])
                life.expects_data = way in ("data", "hand")
                if way != "idle":
                    port.submit(Hello(key, life))
                if way in ("data", "race", "hand"):
                    peer.send(life.tag)
                if way in ("data", "hand"):
                    assert life.taken.wait(LIMIT), "a lost message"
                if way == "hand":  # the number goes back by our own hand
                    port.disassociate(key)
                    ours.close()
                else:
                    key.close()
                peer.close()
                if way != "idle":
                    assert life.taken.wait(LIMIT), "a lost completion"

        def take() -> None:
            for completion in port:
                if completion.key is stop:
                    return
                operation, key = completion.operation, completion.key
                assert isinstance(operation, Hello)
                assert key is not None
                life = operation.life
                if key.data is not life:
                    errors.append(f"{key.data!r} instead of {life!r}")
                if completion.error is None:
                    assert isinstance(operation.buffer, bytearray)
                    if operation.buffer[: completion.nbytes] != life.tag:
                        errors.append(f"{operation.buffer!r} instead of {life.tag!r}")
                elif life.expects_data:
                    errors.append(f"{life.tag!r}: {completion.error!r}")
                elif not isinstance(completion.error, portio.OperationCancelledError):
                    errors.append(repr(completion.error))
                if life.taken.is_set():
                    errors.append(f"{life.tag!r} completed twice")
                life.taken.set()

        takers = [Background(take) for _ in range(2)]
        lives = [Background(live, number, random.Random(rng.random())) for number in range(THREADS)]
        for thread in lives:
            thread.result(LIMIT * 3)
        for _ in takers:
            port.post(stop)
        for taker in takers:
            taker.result()
    assert not errors


@pytest.mark.usefixtures("no_leak")
def test_association_race(backend: str, rng: random.Random) -> None:
    """Of threads that associate the same socket with two ports, one wins (K1)."""
    with portio.Port(backend=backend) as first, portio.Port(backend=backend) as second:
        for _ in range(200):
            ours, peer = socket.socketpair()
            barrier = threading.Barrier(THREADS)

            def associate(port: portio.Port) -> portio.CompletionKey | None:
                barrier.wait(LIMIT)
                try:
                    return port.associate(ours)
                except (ValueError, OSError):
                    return None

            threads = [Background(associate, rng.choice([first, second])) for _ in range(THREADS)]
            (key,) = [key for key in [thread.result() for thread in threads] if key]
            port = key.port
            assert port is not None
            operation = portio.Recv(key, bytearray(8))
            port.submit(operation)
            peer.send(b"hello")
            completion = port.get(LIMIT)
            assert completion is not None
            assert completion.operation is operation
            assert completion.nbytes == 5
            key.close()
            peer.settimeout(LIMIT)
            assert recv_exactly(peer, 1) == b""
            peer.close()


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("thread_bound", [False, True], ids=["shared", "thread_bound"])
def test_dropped_keys(backend: str, *, thread_bound: bool) -> None:
    """A key that is dropped gives its handle back, whichever thread the collector runs in."""
    over = threading.Event()

    def collect() -> None:
        while not over.is_set():
            gc.collect(0)

    with portio.Port(backend=backend, thread_bound=thread_bound) as port, Background(collect):
        for turn in range(1000):
            ours, peer = socket.socketpair()
            key = port.associate(ours, turn)
            port.submit(portio.Recv(key, bytearray(8)))
            peer.send(b"hello")
            completion = port.get(LIMIT)
            assert completion is not None
            assert completion.key is key
            if turn % 2:
                key.data = [key, completion]  # only the collector can find it
            del key, completion
            if turn % 2 == 0:  # without the collector: at once
                again = port.associate(ours, turn)
                peer.send(b"again")
                port.submit(portio.Recv(again, bytearray(8)))
                completion = port.get(LIMIT)
                assert completion is not None
                assert completion.result() == 5
                del completion, again
            ours.close()
            peer.close()
        over.set()


@pytest.mark.usefixtures("no_leak")
def test_operations_of_ended_threads(backend: str, rng: random.Random) -> None:
    """What a thread has started goes on when the thread has ended."""
    with portio.Port(4, backend=backend) as port:
        pairs = [socket.socketpair() for _ in range(200)]
        operations: list[portio.Recv] = []

        def submit(ours: socket.socket) -> None:
            operation = portio.Recv(port.associate(ours), bytearray(16))
            port.submit(operation)
            operations.append(operation)

        for ours, _ in pairs:
            Background(submit, ours).result()
        eventually(lambda: threading.active_count() < 50, "the threads' end")
        order = list(range(len(pairs)))
        rng.shuffle(order)
        for index in order:
            pairs[index][1].send(b"%d" % index)
        end = time.monotonic() + LIMIT
        arrived: set[int] = set()
        while len(arrived) < len(pairs) and time.monotonic() < end:
            for completion in port.get_many(timeout=1):
                operation = completion.operation
                assert isinstance(operation, portio.Recv)
                assert isinstance(operation.buffer, bytearray)
                arrived.add(int(operation.buffer[: completion.result()]))
        assert arrived == set(order)
        for ours, peer in pairs:
            ours.close()
            peer.close()
