"""Posted packets: none lost, none doubled, and in order for each who posts."""

from __future__ import annotations

import random
import time

import pytest

import portio
from support.threads import Background
from support.watch import LIMIT, fail_with_dump

POSTERS = 8
TAKERS = 4
EACH = 4000


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("concurrency", [1, 2, 4])
def test_posts(backend: str, rng: random.Random, concurrency: int) -> None:
    """Eight threads post, four take."""
    stop = portio.CompletionKey("stop")
    keys = [portio.CompletionKey(number) for number in range(POSTERS)]
    with portio.Port(concurrency, backend=backend) as port:

        def post(number: int) -> None:
            for index in range(EACH):
                port.post(keys[number], index, (number, index))

        def take(limit: int) -> list[tuple[int, int]]:
            taken: list[tuple[int, int]] = []
            over = False
            while not over:
                for completion in port.get_many(limit):
                    if completion.key is stop:
                        over = True
                        continue
                    number, index = completion.result()
                    assert completion.key is keys[number]
                    assert completion.nbytes == index
                    taken.append((number, index))
            port.post(stop)  # for the next one
            return taken

        takers = [Background(take, rng.choice([1, 1, 3])) for _ in range(TAKERS)]
        posters = [Background(post, number) for number in range(POSTERS)]
        for poster in posters:
            poster.result(LIMIT * 3)
        port.post(stop)
        taken = [taker.result(LIMIT * 3) for taker in takers]
    for mine in taken:  # FIFO: a thread never sees an older packet after a newer one
        for number in range(POSTERS):
            order = [index for poster, index in mine if poster == number]
            assert order == sorted(order)
    everything = sorted(packet for mine in taken for packet in mine)
    assert everything == [(number, index) for number in range(POSTERS) for index in range(EACH)]


@pytest.mark.usefixtures("no_leak")
def test_posts_to_a_thread_bound_port(backend: str) -> None:
    """Eight threads post, the owner takes."""
    with portio.Port(backend=backend, thread_bound=True) as port:

        def post(number: int) -> None:
            for index in range(EACH):
                port.post(None, number, index)

        posters = [Background(post, number) for number in range(POSTERS)]
        seen = [0] * POSTERS
        end = time.monotonic() + LIMIT * 3
        while sum(seen) < POSTERS * EACH:
            for completion in port.get_many(64, 1.0):
                assert completion.result() == seen[completion.nbytes]
                seen[completion.nbytes] += 1
            if time.monotonic() > end:
                fail_with_dump(f"{sum(seen)} of {POSTERS * EACH} packets came")
        for poster in posters:
            poster.result()
        assert port.get(0) is None


@pytest.mark.usefixtures("no_leak")
def test_takers_that_time_out(backend: str) -> None:
    """A time-out in the very moment of a post loses no packet."""
    rounds = 3000
    with portio.Port(4, backend=backend) as port:
        stop = portio.CompletionKey("stop")

        def take(chance: random.Random) -> list[int]:
            taken: list[int] = []
            while True:
                completion = port.get(chance.choice([0, 0.00005, 0.0002, 0.001]))
                if completion is None:
                    continue
                if completion.key is stop:
                    return taken
                taken.append(completion.nbytes)

        takers = [Background(take, random.Random(number)) for number in range(TAKERS)]
        for index in range(rounds):
            port.post(None, index)
            if index % 7 == 0:
                time.sleep(0.0003)  # about as long as the time-outs: nothing depends on it
        for _ in takers:
            port.post(stop)
        taken = [taker.result(LIMIT * 3) for taker in takers]
    assert sorted(index for mine in taken for index in mine) == list(range(rounds))
