"""Walks one hot path: ``python -m benchmarks.guard.paths NAME BACKEND ROUNDS``.

A round is 50 operations, started and taken in batches, on a thread-bound port.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable

import portio

BATCH = 50
SIZE = 64


def reference(backend: str) -> Callable[[], None]:
    """Work of the interpreter alone: calls, attributes, tuples and a dict of large ints."""
    del backend

    class Item:
        __slots__ = ("link", "number")

        def __init__(self, number: int) -> None:
            self.number = number

        def step(self, link: object) -> tuple[object, int, object]:
            self.link = link
            return self, self.number, link

    pending: dict[int, tuple[object, int, object]] = {}

    def walk() -> None:
        for number in range(1 << 40, (1 << 40) + BATCH):
            item = Item(number)
            pending[number] = item.step(pending)
        taken = []
        for number in range(1 << 40, (1 << 40) + BATCH):
            entry = pending[number]
            del pending[number]
            taken.append(entry[0])

    return walk


def _port(backend: str) -> portio.Port:
    return portio.Port(backend=backend, thread_bound=True)


def _take(port: portio.Port, count: int) -> None:
    while count:
        count -= len(port.get_many(256, 0))


def posts(backend: str) -> Callable[[], None]:
    """Post, and get."""
    port = _port(backend)

    def walk() -> None:
        for _ in range(BATCH):
            port.post()
        _take(port, BATCH)

    return walk


def steps(backend: str) -> Callable[[], None]:
    """The same with a step of an iteration for each."""
    port = _port(backend)

    def walk() -> None:
        for _ in range(BATCH):
            port.post()
        for count, _ in enumerate(port, 1):
            if count == BATCH:
                break

    return walk


def _sends(backend: str, *, quiet: bool) -> Callable[[], None]:
    port = _port(backend)
    ours, peer = socket.socketpair()
    key = port.associate(ours)
    operations = [portio.Send(key, b"x" * SIZE) for _ in range(BATCH)]

    def walk() -> None:
        if quiet:
            for operation in operations:
                port.submit(operation, quiet=True)
            port.get_many(256, 0)
        else:
            for operation in operations:
                port.submit(operation)
            _take(port, BATCH)
        peer.recv(SIZE * BATCH)

    return walk


def sends(backend: str) -> Callable[[], None]:
    """Sends that succeed at once, each with its packet."""
    return _sends(backend, quiet=False)


def quiet_sends(backend: str) -> Callable[[], None]:
    """The same without packets."""
    return _sends(backend, quiet=True)


def receives(backend: str) -> Callable[[], None]:
    """Receives that wait for their bytes."""
    port = _port(backend)
    pairs = [socket.socketpair() for _ in range(BATCH)]
    operations = [portio.Recv(port.associate(ours), bytearray(SIZE)) for ours, _ in pairs]
    data = b"x" * SIZE

    def walk() -> None:
        for operation in operations:
            port.submit(operation)
        port.get_many(256, 0)
        for _, peer in pairs:
            peer.send(data)
        _take(port, BATCH)

    return walk


def _pieces(backend: str, kind: type[portio.RecvMultishot | portio.RecvLent]) -> Callable[[], None]:
    port = _port(backend)
    pool = portio.BufferPool(port, 2 * BATCH, SIZE)
    peers = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(BATCH):
            peers.append(socket.create_connection(listener.getsockname()))
            port.submit(kind(port.associate(listener.accept()[0]), pool))
    data = b"x" * SIZE

    def walk() -> None:
        for peer in peers:
            peer.send(data)
        _take(port, BATCH)

    return walk


def pieces(backend: str) -> Callable[[], None]:
    """Receives that go on, with a pool."""
    return _pieces(backend, portio.RecvMultishot)


def lent(backend: str) -> Callable[[], None]:
    """The same with the buffers themselves."""
    return _pieces(backend, portio.RecvLent)


def _listener() -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")  # the system chooses a name
    listener.listen(BATCH)
    return listener


def _clients(listener: socket.socket) -> list[socket.socket]:
    name = listener.getsockname()
    clients = [socket.socket(socket.AF_UNIX) for _ in range(BATCH)]
    for client in clients:
        client.connect(name)
    return clients


def accepts(backend: str) -> Callable[[], None]:
    """Connections that are accepted, associated and closed."""
    port = _port(backend)
    listener = _listener()
    key = port.associate(listener)
    operations = [portio.Accept(key) for _ in range(BATCH)]

    def walk() -> None:
        clients = _clients(listener)
        for operation in operations:
            port.submit(operation)
        count = BATCH
        while count:
            for done in port.get_many(256, 0):
                port.associate(done.result()).close()
                count -= 1
        for client in clients:
            client.close()

    return walk


def connections(backend: str) -> Callable[[], None]:
    """Connections that come with their keys, each with a receive up to its end."""
    port = _port(backend)
    pool = portio.BufferPool(port, 2 * BATCH, SIZE)
    listener = _listener()
    key = port.associate(listener)
    port.submit(portio.AcceptKey(key, multishot=True))

    def walk() -> None:
        clients = _clients(listener)
        count = BATCH
        while count:
            for done in port.get_many(256, 0):
                port.submit(portio.RecvMultishot(done.result(), pool))
                count -= 1
        for client in clients:
            client.close()
        count = BATCH
        while count:
            for done in port.get_many(256, 0):
                assert done.key is not None
                done.key.close()
                count -= 1

    return walk


def reads(backend: str) -> Callable[[], None]:
    """Reads of a file that is in memory."""
    port = _port(backend)
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(4096 * BATCH))
        file.flush()
        key = port.associate(portio.open(file.name))
    operations = [portio.Read(key, bytearray(4096), 4096 * at) for at in range(BATCH)]

    def walk() -> None:
        for operation in operations:
            port.submit(operation)
        _take(port, BATCH)

    return walk


PATHS: dict[str, Callable[[str], Callable[[], None]]] = {
    path.__name__: path
    for path in (
        reference,
        posts,
        steps,
        sends,
        quiet_sends,
        receives,
        pieces,
        lent,
        accepts,
        connections,
        reads,
    )
}


def main() -> None:
    """Walk, and end without the work of taking everything down."""
    name, backend, rounds = sys.argv[1:]
    walk = PATHS[name](backend)
    for _ in range(int(rounds)):
        walk()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
