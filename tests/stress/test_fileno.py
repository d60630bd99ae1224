"""The port's descriptor never sleeps through a packet (P11)."""

from __future__ import annotations

import random
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portio
from support.system import WINDOWS
from support.threads import Background
from support.watch import LIMIT, fail_with_dump

pytestmark = pytest.mark.skipif(WINDOWS, reason="a port's handle cannot be polled there")
POSTS = 4000
EACH = 3000


def no_packet(port: portio.Port, poll: Callable[[], object]) -> bool:
    """After a poll that saw nothing: was there really nothing?"""
    return port.get(0) is None and not poll()


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("thread_bound", [False, True], ids=["shared", "thread_bound"])
@pytest.mark.parametrize("limit", [1, 3, 256])
def test_no_missed_wake_up(
    backend: str, rng: random.Random, tmp_path: Path, limit: int, *, thread_bound: bool
) -> None:
    """Everything is taken by a loop that takes only when the descriptor is readable."""
    (tmp_path / "file").write_bytes(bytes(100_000))
    ours, peer = socket.socketpair()
    room = threading.Semaphore(100)
    with (
        ours,
        peer,
        portio.open(tmp_path / "file") as file,
        portio.Port(backend=backend, thread_bound=thread_bound) as port,
        select.epoll() as poll,
    ):
        poll.register(port.fileno(), select.EPOLLIN)
        key, file_key = port.associate(ours), port.associate(file)
        left: dict[portio.Operation[Any], int] = {
            portio.Recv(key, bytearray(1)): EACH,
            portio.Timer(0.0001): EACH // 10,
            portio.Timer(0): EACH // 3,
            portio.Read(file_key, bytearray(1000), 500): EACH // 3,
            portio.Sync(file_key): EACH // 30,
        }

        def post() -> None:
            for _ in range(POSTS):
                assert room.acquire(timeout=LIMIT)
                port.post()

        def speak(chance: random.Random) -> None:
            for _ in range(EACH):
                peer.send(b"x")
                if chance.random() < 0.02:
                    time.sleep(0.0005)

        port.submit(*left)
        posted = 0
        with Background(post), Background(speak, random.Random(rng.random())):
            while left or posted < POSTS:
                if not poll.poll(LIMIT):
                    found = port.get(0)
                    fail_with_dump(f"not readable; {found!r} was there; left: {left}, {posted}")
                # Some of what is there, or all: the rest must be announced as well.
                for completion in port.get_many(limit, 0):
                    operation = completion.operation
                    completion.result()
                    if operation is None:
                        posted += 1
                        room.release()
                    elif left[operation] == 1:
                        del left[operation]
                    else:
                        left[operation] -= 1
                        port.submit(operation)
        while port.get(0) is not None:
            pytest.fail("a packet too many")
        assert not poll.poll(0) or port.get(0) is None
