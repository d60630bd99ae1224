"""Threads that block and come back, at the limit of the port's concurrency (P4)."""

from __future__ import annotations

import random
import threading

import pytest

import portio
from support.threads import Background
from support.watch import LIMIT

ROUNDS = 3000


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("concurrency", [1, 2])
def test_blocked_threads_give_way(backend: str, rng: random.Random, concurrency: int) -> None:
    """A thread that waits for another one's work lets it run, thousands of times."""
    stop = portio.CompletionKey("stop")
    work = portio.CompletionKey("work")
    help_ = portio.CompletionKey("help")
    finished = threading.Semaphore(0)
    with portio.Port(concurrency, backend=backend) as port:

        def serve(chance: random.Random) -> int:
            served = 0
            for completion in port:
                served += 1
                if completion.key is stop:
                    port.post(stop)
                    break
                event = completion.payload
                if completion.key is help_:
                    assert isinstance(event, threading.Event)
                    event.set()
                    continue
                # Two of the six threads may wait at once; someone is left to help.
                helped = threading.Event()
                port.post(help_, payload=helped)
                with port.blocking():
                    assert helped.wait(LIMIT), "nobody helps"
                if chance.random() < 0.1:
                    with port.blocking():
                        pass
                finished.release()
            return served

        workers = [Background(serve, random.Random(rng.random())) for _ in range(6)]
        for _ in range(2):
            port.post(work)
        for turn in range(ROUNDS):
            assert finished.acquire(timeout=LIMIT), f"stuck in round {turn}"
            if turn < ROUNDS - 2:
                port.post(work)
        port.post(stop)
        served = sum(worker.result() for worker in workers)
    assert served == 2 * ROUNDS + 6


@pytest.mark.usefixtures("no_leak")
def test_places_come_back(backend: str) -> None:
    """Threads that end, or turn to another port, leave no place occupied."""
    with portio.Port(1, backend=backend) as port, portio.Port(1, backend=backend) as other:

        def take_and_end() -> None:
            assert port.get(LIMIT) is not None

        def take_and_leave(done: threading.Event) -> None:
            assert port.get(LIMIT) is not None
            assert other.get(0) is None
            assert done.wait(LIMIT)

        for _ in range(300):
            done = threading.Event()
            port.post()
            port.post()
            ending = Background(take_and_end)
            leaving = Background(take_and_leave, done)
            port.post()
            assert port.get(LIMIT) is not None, "a place is lost"
            with port.blocking():  # the others may not have had their turn
                ending.result()
                done.set()
                leaving.result()
            assert port.get(0) is None
