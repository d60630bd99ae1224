"""Multishot accepts against cancel, close and several threads that take."""

from __future__ import annotations

import random
import socket
import threading
import time

import pytest

import portio
from support.system import WINE
from support.threads import Background
from support.watch import LIMIT, eventually

LIVES = 20 if WINE else 120
THREADS = 3
STOP = portio.CompletionKey("stop")


class Life:
    """A listener with its accepts, from the first to the last of their completions."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ends = 0
        self.peers: list[object] = []  # of the clients that were accepted
        self.errors: list[str] = []

    def enter(self, done: portio.Completion[socket.socket]) -> None:
        """A completion of one of its accepts."""
        if done.last:
            if not isinstance(done.error, portio.OperationCancelledError):
                self.errors.append(repr(done.error))
            with self.lock:
                self.ends += 1
            return
        with done.result() as client:
            peer = client.getpeername()
        with self.lock:
            self.peers.append(peer)

    def accept_the_rest(self, listener: socket.socket) -> None:
        """Nothing is pending: what is in the backlog now is what was not accepted."""
        listener.setblocking(False)
        while True:
            try:
                client, peer = listener.accept()
            except BlockingIOError:
                return
            client.close()
            with self.lock:
                self.peers.append(peer)


def live(port: portio.Port, chance: random.Random) -> None:
    """Listeners one after the other, each with an end that comes at some moment."""
    for _ in range(LIVES):
        life = Life()
        count = chance.randrange(1, 12)
        end = chance.choice(["cancel", "close", "after all"])
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        names: list[object] = []
        key = port.associate(listener, life)
        accepts = [portio.Accept(key, multishot=True) for _ in range(chance.randrange(1, 4))]
        port.submit(*accepts)

        def connect(count: int, address: object, names: list[object]) -> None:
            for _ in range(count):
                with socket.create_connection(address, timeout=LIMIT) as client:  # type: ignore[arg-type]
                    names.append(client.getsockname())

        if end == "close":  # then the clients have to be there, or there is nobody to connect to
            connect(count, listener.getsockname(), names)
            key.close()
        else:
            with Background(connect, count, listener.getsockname(), names):
                if end == "cancel":
                    for accept in accepts:
                        accept.cancel()
            if end == "after all":
                eventually(lambda life=life, names=names: len(life.peers) == len(names), "accepted")
                for accept in accepts:
                    accept.cancel()
        eventually(lambda life=life, accepts=accepts: life.ends == len(accepts), "the ends")
        assert not any(accept.pending for accept in accepts)
        assert not life.errors
        if end == "close":
            with life.lock:  # a slower thread may add to it still
                peers = list(life.peers)
            assert set(peers) <= set(names)
        else:
            life.accept_the_rest(listener)
            # A slower thread may still have one in hand that it took before the end.
            eventually(lambda life=life: len(life.peers) == count, "every client")
            peers = life.peers
            assert sorted(map(str, peers)) == sorted(map(str, names))
            key.close()
        assert len(set(peers)) == len(peers)
        assert life.ends == len(accepts)


@pytest.mark.usefixtures("no_leak")
def test_shared(backend: str, rng: random.Random) -> None:
    with portio.Port(4, backend=backend) as port:

        def take(limit: int) -> None:
            over = False
            while not over:
                for done in port.get_many(limit):
                    if done.key is STOP:
                        over = True
                    else:
                        assert done.key is not None
                        assert isinstance(done.key.data, Life)
                        done.key.data.enter(done)
            port.post(STOP)  # for the next one

        takers = [Background(take, limit) for limit in (1, 1, 16)]
        lives = [Background(live, port, random.Random(rng.random())) for _ in range(THREADS)]
        try:
            for thread in lives:
                thread.result(LIMIT * 3)
        finally:
            port.post(STOP)
        for taker in takers:
            taker.result()


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_closing_the_port(backend: str, rng: random.Random, kind: str) -> None:
    """In the middle of it: no operation stays pending, and no socket is left."""
    for _ in range(5 if WINE else 40):
        with (
            socket.create_server(("127.0.0.1", 0), backlog=64) as listener,
            portio.Port(4, backend=backend, thread_bound=kind == "thread_bound") as port,
        ):
            key = port.associate(listener)
            accepts = [portio.Accept(key, multishot=True) for _ in range(2)]
            port.submit(*accepts)
            clients = [socket.create_connection(listener.getsockname()) for _ in range(8)]

            def take(port: portio.Port, limit: int) -> None:
                while True:
                    try:
                        batch = port.get_many(limit)
                    except portio.PortClosedError:
                        return
                    for done in batch:
                        done.result().close()

            if kind == "shared":
                takers = [Background(take, port, limit) for limit in (1, 1, 16)]
                time.sleep(rng.random() / 1000)  # some moment in the middle
                port.close()
                for taker in takers:
                    taker.result()
            else:
                for done in port.get_many(rng.randrange(1, 5)):
                    done.result().close()
                port.close()
            assert not any(accept.pending for accept in accepts)
            for client in clients:
                client.close()
