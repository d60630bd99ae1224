"""Accepts many connections, echoes once on each, and says what that has cost.

Arguments: backend, "shared" or "thread_bound", number of connections.
Lines: "port N"; "pending BYTES" when a Recv is pending on each, where BYTES is
what each of these operations takes; "closed" when all is over.
"""

from __future__ import annotations

import gc
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import portio

SIZE = 16
STOP = portio.CompletionKey("stop")


def memory() -> int:
    """The memory of this process alone, in bytes."""
    gc.collect()
    if sys.platform == "win32":
        return 0  # what the system counts there says nothing about so little
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise LookupError("Pss")


class Server:
    """A port, its connections, and what is left to do."""

    def __init__(self, backend: str, kind: str, count: int) -> None:
        self.count = count
        self.port = portio.Port(backend=backend, thread_bound=kind == "thread_bound")
        self.lock = threading.Lock()
        self.closed = 0

    def accept_all(self) -> list[portio.CompletionKey]:
        """Accept, with a few accepts pending all the time."""
        listener = self.port.associate(socket.create_server(("127.0.0.1", 0), backlog=4096))
        assert isinstance(listener.handle, socket.socket)
        print("port", listener.handle.getsockname()[1], flush=True)
        keys: list[portio.CompletionKey] = []
        started = min(64, self.count)
        self.port.submit(*(portio.Accept(listener) for _ in range(started)))
        while len(keys) < self.count:
            for completion in self.port.get_many():
                keys.append(self.port.associate(completion.result()))
                if started < self.count:
                    assert completion.operation is not None
                    self.port.submit(completion.operation)
                    started += 1
        listener.close()
        return keys

    def serve(self) -> None:
        """Echo, and close when the client closes."""
        over = False
        while not over:
            completions = self.port.get_many()
            for completion in completions:
                over |= completion.key is STOP or self.carry_on(completion)
        if not self.port.thread_bound:
            self.port.post(STOP)

    def carry_on(self, completion: portio.Completion[Any]) -> bool:
        """One step of one connection; true when it was the last of all."""
        operation, key = completion.operation, completion.key
        nbytes = completion.result()
        assert key is not None
        if isinstance(operation, portio.Recv):
            if nbytes:
                assert nbytes == SIZE
                self.port.submit(portio.Send(key, operation.buffer))
                return False
            key.close()
            with self.lock:
                self.closed += 1
                return self.closed == self.count
        assert isinstance(operation, portio.Send)
        self.port.submit(portio.Recv(key, operation.buffer))
        return False


def main(backend: str, kind: str, count: int) -> None:
    """Serve one client program."""
    server = Server(backend, kind, count)
    keys = server.accept_all()
    # What belongs to the first operation of all, and not to each.
    pair = socket.socketpair()
    probe = server.port.associate(pair[0])
    server.port.submit(portio.Recv(probe, bytearray(SIZE)))
    probe.close()
    assert server.port.get() is not None
    buffers = [bytearray(SIZE) for _ in keys]
    before = memory()
    for key, buffer in zip(keys, buffers, strict=True):
        server.port.submit(portio.Recv(key, buffer))
    assert server.port.get(0) is None
    cost = (memory() - before) / count
    del keys, buffers
    print("pending", round(cost), flush=True)
    if kind == "thread_bound":
        server.serve()
    else:
        workers = [threading.Thread(target=server.serve) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    server.port.close()
    print("closed", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
