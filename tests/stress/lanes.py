"""Handles on which operations race, each with a model of what must come out.

A lane makes operations one after the other, helps them along when it is told to
`feed`, and at the end compares what its operations say with what really
happened.  An operation belongs to one lane; a lane is used by one submitting
thread, one feeding thread, and whoever takes the completions.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import portio
from support import handles
from support.net import datagram_pair, pattern
from support.system import WINE
from support.watch import LIMIT

WORD = struct.Struct("!Q")


class Outcome:
    """What became of one operation."""

    def __init__(self, operation: portio.Operation[Any]) -> None:
        self.operation: portio.Operation[Any] | None = operation
        self.completions = 0
        self.nbytes = 0
        self.error: OSError | None = None
        self.data = b""


class Lane:
    """Makes operations, and knows what must become of them."""

    feeds = True

    def __init__(self, port: portio.Port, rng: random.Random) -> None:
        self.port = port
        self.rng = random.Random(rng.random())
        self.outcomes: list[Outcome] = []

    def make(self) -> portio.Operation[Any]:
        """The next operation."""
        raise NotImplementedError

    def feed(self) -> None:
        """Help one operation to complete."""

    def enter(self, outcome: Outcome, completion: portio.Completion[Any]) -> None:
        """Remember what is needed of a completion, right after it was taken."""

    def check(self) -> None:
        """Everything has completed: compare."""

    def close(self) -> None:
        """Give everything back."""


def stream_pair(chance: random.Random) -> tuple[socket.socket, socket.socket]:
    """Two connected stream sockets of either family."""
    if chance.random() < 0.5:
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname())
        right, _ = server.accept()
    for sock in (left, right):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return left, right


def let_go(port: portio.Port, key: portio.CompletionKey) -> None:
    """Take the handle back from the port, where the system can: Wine cannot."""
    if not WINE:
        port.disassociate(key)


def words(data: bytes | bytearray) -> list[int]:
    """The words in a piece of stream, which must not be torn."""
    return [word for (word,) in WORD.iter_unpack(data)]


class ReceiveLane(Lane):
    """Receives on a stream, where the peer sends one number after the other."""

    def __init__(self, port: portio.Port, rng: random.Random) -> None:
        super().__init__(port, rng)
        self.sock, self.peer = stream_pair(self.rng)
        self.peer.setblocking(False)
        self.key = port.associate(self.sock)
        self.said = 0

    def make(self) -> portio.Operation[Any]:
        return portio.Recv(self.key, bytearray(WORD.size))

    def feed(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full, because nobody receives any more
            self.peer.send(WORD.pack(self.said))
            self.said += 1

    def enter(self, outcome: Outcome, completion: portio.Completion[Any]) -> None:
        operation = completion.operation
        assert isinstance(operation, portio.Recv | portio.Read)
        assert isinstance(operation.buffer, bytearray)
        outcome.data = bytes(operation.buffer[: completion.nbytes])

    def rest(self) -> bytes:
        """What no operation has received."""
        let_go(self.port, self.key)
        self.peer.close()
        self.sock.setblocking(True)
        self.sock.settimeout(LIMIT)
        return b"".join(iter(lambda: self.sock.recv(65536), b""))

    def check(self) -> None:
        for outcome in self.outcomes:
            assert bool(outcome.error) == (outcome.nbytes == 0)
        received = b"".join(outcome.data for outcome in self.outcomes)
        self.compare(words(received + self.rest()), list(range(self.said)))

    def compare(self, received: list[int], sent: list[int]) -> None:
        """Everything, and in the order of the submissions (O9)."""
        assert received == sent

    def close(self) -> None:
        self.sock.close()
        self.peer.close()


class PipeReadLane(ReceiveLane):
    """Reads from a pipe."""

    def __init__(self, port: portio.Port, rng: random.Random) -> None:
        Lane.__init__(self, port, rng)
        self.reader, self.writer = portio.pipe()
        self.key = port.associate(self.reader)
        self.said = 0

    def make(self) -> portio.Operation[Any]:
        return portio.Read(self.key, bytearray(WORD.size))

    def feed(self) -> None:
        with contextlib.suppress(BlockingIOError):
            handles.try_write(self.writer, WORD.pack(self.said))
            self.said += 1

    def rest(self) -> bytes:
        let_go(self.port, self.key)
        self.writer.close()
        data = bytearray()
        while part := handles.read(self.reader, 65536):
            data += part
        return bytes(data)

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


class DatagramLane(ReceiveLane):
    """Datagrams, of which a cancelled receive must take none."""

    def __init__(self, port: portio.Port, rng: random.Random) -> None:
        Lane.__init__(self, port, rng)
        self.sock, self.peer = datagram_pair()
        self.peer.setblocking(False)
        self.key = port.associate(self.sock)
        self.said = 0

    def make(self) -> portio.Operation[Any]:
        buffer = bytearray(WORD.size)
        if self.rng.random() < 0.5:
            return portio.Recv(self.key, buffer)
        return portio.RecvFrom(self.key, buffer)

    def enter(self, outcome: Outcome, completion: portio.Completion[Any]) -> None:
        operation = completion.operation
        assert isinstance(operation, portio.Recv | portio.RecvFrom)
        assert isinstance(operation.buffer, bytearray)
        outcome.data = bytes(operation.buffer[: completion.nbytes])

    def rest(self) -> bytes:
        let_go(self.port, self.key)
        data = bytearray()
        self.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                data += self.sock.recv(64)
        return bytes(data)

    def compare(self, received: list[int], sent: list[int]) -> None:
        """Everything; which of the pending receives gets which message is nobody's business."""
        assert sorted(received) == sent


class SendLane(Lane):
    """Sends that fill the buffer, and a peer that reads a little at a time."""

    def __init__(self, port: portio.Port, rng: random.Random) -> None:
        super().__init__(port, rng)
        self.sock, self.peer = stream_pair(self.rng)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.peer.setblocking(False)
        self.key = port.associate(self.sock)
        self.offered: list[bytes] = []
        self.arrived = bytearray()
        self.position = 0

    def next_piece(self) -> bytes:
        size = self.rng.choice([1, 100, 5000, 20_000])
        piece = pattern(size, self.position)
        self.position += size
        self.offered.append(piece)
        return piece

    def make(self) -> portio.Operation[Any]:
        return portio.Send(self.key, self.next_piece())

    def feed(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.arrived += self.peer.recv(16_384)

    def finish_reading(self) -> None:
        let_go(self.port, self.key)
        self.sock.close()
        self.peer.setblocking(True)
        self.peer.settimeout(LIMIT)
        while part := self.peer.recv(65536):
            self.arrived += part

    def check(self) -> None:
        self.finish_reading()
        sent = bytearray()
        for piece, outcome in zip(self.offered, self.outcomes, strict=True):
            assert outcome.error or outcome.nbytes == len(piece)
            sent += piece[: outcome.nbytes]
        assert len(self.arrived) == len(sent)
        assert self.arrived == sent

    def close(self) -> None:
        self.sock.close()
        self.peer.close()


class SendFileLane(SendLane):
    """Parts of a file, and between them ordinary sends."""

    def __init__(self, port: portio.Port, rng: random.Random) -> None:
        super().__init__(port, rng)
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.file.write(pattern(1 << 20))
        self.file.flush()

    def make(self) -> portio.Operation[Any]:
        if self.rng.random() < 0.3:
            return super().make()
        size = self.rng.choice([1, 5000, 70_000])
        offset = self.rng.randrange((1 << 20) - size)
        self.offered.append(pattern(size, offset))
        return portio.SendFile(self.key, self.file, offset, size)

    def close(self) -> None:
        self.file.close()
        super().close()


class PipeWriteLane(SendLane):
    """Writes that fill a pipe."""

    def __init__(self, port: portio.Port, rng: random.Random) -> None:
        Lane.__init__(self, port, rng)
        self.reader, self.writer = portio.pipe()
        self.key = port.associate(self.writer)
        self.offered = []
        self.arrived = bytearray()
        self.position = 0

    def make(self) -> portio.Operation[Any]:
        return portio.Write(self.key, self.next_piece())

    def feed(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.arrived += handles.try_read(self.reader, 4096)

    def finish_reading(self) -> None:
        let_go(self.port, self.key)
        self.writer.close()
        while part := handles.read(self.reader, 65536):
            self.arrived += part

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


class TimerLane(Lane):
    """Timers of a few milliseconds."""

    feeds = False

    def __init__(self, port: portio.Port, rng: random.Random) -> None:
        super().__init__(port, rng)
        self.due: dict[portio.Operation[Any], float] = {}

    def make(self) -> portio.Operation[Any]:
        seconds = self.rng.choice([0.0, 0.0005, 0.002, 0.005])
        timer = portio.Timer(seconds)
        self.due[timer] = time.monotonic() + seconds
        return timer

    def enter(self, outcome: Outcome, completion: portio.Completion[Any]) -> None:
        assert completion.operation is not None
        due = self.due.pop(completion.operation)
        assert completion.error or time.monotonic() >= due, "a timer came early"


class AcceptLane(Lane):
    """Accepts, of which a cancelled one must take no connection."""

    def __init__(self, port: portio.Port, rng: random.Random) -> None:
        super().__init__(port, rng)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.key = port.associate(self.listener)
        self.clients: dict[object, socket.socket] = {}
        self.accepted: list[socket.socket] = []
        self.lock = threading.Lock()

    def make(self) -> portio.Operation[Any]:
        return portio.Accept(self.key)

    def feed(self) -> None:
        client = socket.create_connection(self.listener.getsockname(), LIMIT)
        with self.lock:
            self.clients[client.getsockname()] = client

    def enter(self, outcome: Outcome, completion: portio.Completion[Any]) -> None:
        if completion.error is None:
            sock = completion.result()
            assert isinstance(sock, socket.socket)
            assert not sock.get_inheritable()
            self.settle(sock)

    def settle(self, sock: socket.socket) -> None:
        """Each accepted socket has a client of its own; both are done with."""
        with sock:
            peer = sock.getpeername()
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            with self.lock:
                client = self.clients.pop(peer, None)
            if client is not None:
                client.close()
                return
            time.sleep(0.001)  # the feeder has connected, but not written it down yet
        raise AssertionError(f"{peer} was accepted twice, or is nobody's")

    def check(self) -> None:
        let_go(self.port, self.key)
        self.listener.setblocking(False)
        while self.clients:  # BlockingIOError here: a connection was lost
            self.settle(self.listener.accept()[0])

    def close(self) -> None:
        self.listener.close()
        for client in list(self.clients.values()):  # after a failure the feeder still runs
            client.close()


class ConnectLane(Lane):
    """Connects to one listener, each on a socket of its own."""

    feeds = False

    def __init__(self, port: portio.Port, rng: random.Random) -> None:
        super().__init__(port, rng)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4000)

    def make(self) -> portio.Operation[Any]:
        key = self.port.associate(socket.socket())
        return portio.Connect(key, self.listener.getsockname())

    def enter(self, outcome: Outcome, completion: portio.Completion[Any]) -> None:
        assert completion.key
        sock = completion.key.handle
        assert isinstance(sock, socket.socket)
        if completion.error is None:
            assert sock.getpeername() == self.listener.getsockname()
        completion.key.close()

    def close(self) -> None:
        self.listener.close()


class FileLane(Lane):
    """Writes and reads of one file, each at a place of its own."""

    feeds = False
    BLOCK = 4096

    def __init__(self, port: portio.Port, rng: random.Random, folder: Path) -> None:
        super().__init__(port, rng)
        self.path = folder / f"file{id(self)}"
        self.path.write_bytes(pattern(1 << 20))
        self.file = portio.open(self.path, "r+")
        self.key = port.associate(self.file)
        self.made: list[portio.Operation[Any]] = []

    def make(self) -> portio.Operation[Any]:
        operation: portio.Operation[Any]
        if self.rng.random() < 0.5:
            operation = portio.Read(
                self.key, bytearray(self.BLOCK), self.rng.randrange((1 << 20) - self.BLOCK)
            )
        else:
            block = bytes([len(self.made) % 255 + 1]) * self.BLOCK
            operation = portio.Write(self.key, block, (1 << 20) + len(self.made) * self.BLOCK)
        self.made.append(operation)
        return operation

    def enter(self, outcome: Outcome, completion: portio.Completion[Any]) -> None:
        assert completion.error or completion.nbytes == self.BLOCK
        operation = completion.operation
        if isinstance(operation, portio.Read):
            assert isinstance(operation.buffer, bytearray)
            data = operation.buffer[: completion.nbytes]
            assert data == pattern(len(data), operation.offset)

    def check(self) -> None:
        with self.path.open("rb") as file:
            for operation, outcome in zip(self.made, self.outcomes, strict=True):
                if isinstance(operation, portio.Write):
                    file.seek(operation.offset)
                    block = file.read(self.BLOCK)
                    wanted = bytes(operation.buffer)[: outcome.nbytes]  # type: ignore[arg-type]
                    assert block[: outcome.nbytes] == wanted
                    assert not any(block[outcome.nbytes :])

    def close(self) -> None:
        self.file.close()
