"""A port, or a key, that is closed in the middle of everything."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import portio
from support.threads import Background
from support.watch import eventually

ROUNDS = 60


class Receive(portio.Recv):
    """A receive that counts its completions."""

    def __init__(self, key: portio.CompletionKey) -> None:
        super().__init__(key, bytearray(16))
        self.completions = 0


@pytest.mark.usefixtures("no_leak")
def test_port_close(backend: str, rng: random.Random) -> None:
    """Four threads submit, take, cancel and post; each of them ends with PortClosedError."""
    for _ in range(ROUNDS):
        port = portio.Port(2, backend=backend)
        pairs = [socket.socketpair() for _ in range(8)]
        keys = [port.associate(ours) for ours, _ in pairs]
        started: list[Receive] = []
        turns = [0] * 4

        def submit(chance: random.Random) -> None:
            index = chance.randrange(len(keys))
            operation = Receive(keys[index])
            port.submit(operation)
            started.append(operation)
            if chance.random() < 0.7:
                pairs[index][1].send(b"hello")
            turns[0] += 1

        def take(chance: random.Random) -> None:
            for completion in port.get_many(4, chance.choice([None, 0, 0.001])):
                if isinstance(completion.operation, Receive):
                    completion.operation.completions += 1
            turns[1] += 1

        def cancel(chance: random.Random) -> None:
            if started:
                started[-chance.randint(1, min(20, len(started)))].cancel()
            if port.closed:
                port.post()
            turns[2] += 1

        def post(chance: random.Random) -> None:
            port.post(chance.choice([None, *keys]), 1, object())
            turns[3] += 1

        threads = [
            Background(until_closed, call, random.Random(rng.random()))
            for call in (submit, take, cancel, post)
        ]
        wanted = rng.randrange(1, 60)
        eventually(lambda: min(turns) >= wanted, "four busy threads")
        port.close()
        for thread in threads:
            thread.result()
        assert port.closed
        for operation in started:
            assert operation.completions <= 1
            assert isinstance(operation.buffer, bytearray)
            operation.buffer.append(0)  # nothing is pinned any more
        for ours, peer in pairs:
            exchange(ours, peer)
            ours.close()
            peer.close()


def until_closed(call: Callable[[random.Random], None], chance: random.Random) -> None:
    """Call until the port is closed."""
    try:
        while True:
            call(chance)
    except portio.PortClosedError:
        return


def exchange(ours: socket.socket, peer: socket.socket) -> None:
    """A socket that has lost its port works like any other."""
    peer.shutdown(socket.SHUT_WR)
    ours.settimeout(20)
    while ours.recv(65536):
        pass
    ours.sendall(b"still there")
    assert peer.recv(64) == b"still there"


@pytest.mark.usefixtures("no_leak")
def test_close_of_a_thread_bound_port(backend: str, rng: random.Random) -> None:
    """The owner closes while other threads post and cancel."""
    for _ in range(ROUNDS):
        port = portio.Port(backend=backend, thread_bound=True)
        ours, peer = socket.socketpair()
        with ours, peer:
            key = port.associate(ours)
            operations = [Receive(key) for _ in range(20)]
            port.submit(*operations)

            def post(chance: random.Random) -> None:
                port.post(None, chance.randrange(10))

            def cancel(chance: random.Random) -> None:
                chance.choice(operations).cancel()
                port.post()

            threads = [
                Background(until_closed, call, random.Random(rng.random()))
                for call in (post, cancel, post)
            ]
            for _ in range(rng.randrange(30)):
                for completion in port.get_many(8, 0.001):
                    if isinstance(completion.operation, Receive):
                        completion.operation.completions += 1
                        assert isinstance(completion.error, portio.OperationCancelledError)
            port.close()
            for thread in threads:
                thread.result()
            assert all(operation.completions <= 1 for operation in operations)
            exchange(ours, peer)


@pytest.mark.usefixtures("no_leak")
def test_ports_closed_by_many(backend: str) -> None:
    """Four threads close the same port; afterwards it is closed in each of them."""
    for _ in range(ROUNDS):
        port = portio.Port(backend=backend)
        ours, peer = socket.socketpair()
        with ours, peer:
            operation = Receive(port.associate(ours))
            port.submit(operation)
            barrier = threading.Barrier(4)

            def close() -> bool:
                barrier.wait(20)
                port.close()
                return port.closed

            threads = [Background(close) for _ in range(4)]
            assert all(thread.result() for thread in threads)
            assert isinstance(operation.buffer, bytearray)
            operation.buffer.append(0)


@pytest.mark.usefixtures("no_leak")
def test_key_close_against_submit(backend: str, rng: random.Random) -> None:
    """What was submitted before the close completes, what comes after it is refused."""
    with portio.Port(4, backend=backend) as port:
        taken: dict[int, list[portio.Completion[Any]]] = {}
        stop = portio.CompletionKey("stop")

        def take() -> None:
            for completion in port:
                if completion.key is stop:
                    return
                taken.setdefault(id(completion.operation), []).append(completion)

        takers = [Background(take) for _ in range(2)]
        started: list[Receive] = []
        for _ in range(ROUNDS * 3):
            ours, peer = socket.socketpair()
            key = port.associate(ours)
            running, closed = threading.Event(), threading.Event()

            def submit(key: portio.CompletionKey, running: threading.Event) -> None:
                left = 200  # enough to be there when the key is closed
                while True:
                    if left == 0:
                        closed.wait(20)
                    left -= 1
                    operation = Receive(key)
                    try:
                        port.submit(operation)
                    except ValueError:
                        assert key.closed
                        assert not operation.pending
                        return
                    started.append(operation)
                    running.set()

            threads = [Background(submit, key, running) for _ in range(2)]
            assert running.wait(20)
            if rng.random() < 0.5:
                peer.send(b"something")
            key.close()
            closed.set()
            for thread in threads:
                thread.result()
            peer.settimeout(20)
            try:
                assert peer.recv(1) == b""
            except ConnectionResetError:
                pass  # what it had sent was not received
            peer.close()
        eventually(lambda: len(taken) == len(started), "every completion")
        for _ in takers:
            port.post(stop)
        for taker in takers:
            taker.result()
        for operation in started:
            (completion,) = taken[id(operation)]
            if completion.error is None:
                assert completion.nbytes == len(b"something")
            else:
                assert isinstance(completion.error, portio.OperationCancelledError)


@pytest.mark.usefixtures("no_leak")
def test_port_close_and_quiet_sends(backend: str, rng: random.Random) -> None:
    """A send that ends within `submit` just as the port is closed: it raises nothing else."""
    for _ in range(ROUNDS):
        ours, peer = socket.socketpair()
        with ours, peer:
            port = portio.Port(2, backend=backend)
            key = port.associate(ours)
            busy = threading.Event()
            peer.setblocking(False)

            def send(
                port: portio.Port,
                key: portio.CompletionKey,
                peer: socket.socket,
                busy: threading.Event,
            ) -> None:
                try:
                    while True:
                        for operation in [portio.Send(key, b"x") for _ in range(20)]:
                            port.submit(operation, quiet=True)
                            busy.set()
                            with suppress(BlockingIOError):  # the close was faster
                                peer.recv(20)
                except portio.PortClosedError:
                    pass

            with Background(send, port, key, peer, busy):
                assert busy.wait(30)
                for _ in range(rng.randrange(2000)):
                    pass
                port.close()
            assert not port._pending
            key.close()
