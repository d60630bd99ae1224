"""Programs that end, or forget a port, with something still under way."""

from __future__ import annotations

import gc
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import portio
from support import handles

kept: object = None  # lives as long as the module does


def start_everything(port: portio.Port) -> list[Any]:
    """Operations of every kind that do not complete by themselves."""
    ours, peer = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    key = port.associate(ours)
    listener = socket.create_server(("127.0.0.1", 0))
    reader, writer = portio.pipe()
    descriptor, name = tempfile.mkstemp()
    os.close(descriptor)
    file = portio.open(name, "r+")
    if os.name != "nt":  # where an open file keeps its name
        os.unlink(name)
    port.submit(
        portio.Recv(key, bytearray(100)),
        portio.Send(key, bytes(1 << 20)),
        portio.Accept(port.associate(listener)),
        portio.Read(port.associate(reader), [bytearray(10), bytearray(10)]),
        portio.Timer(1000),
        portio.Write(port.associate(file), bytes(1 << 20)),
    )
    port.submit(portio.Timer(1000), queued=False)
    port.post(None, 1, object())
    return [ours, peer, listener, reader, writer, file]


def pending(backend: str, kind: str) -> None:
    """End with operations pending on an open port."""
    global kept  # noqa: PLW0603
    port = portio.Port(backend=backend, thread_bound=kind == "thread_bound")
    kept = (port, start_everything(port))
    print("done", flush=True)


def cycle(backend: str, kind: str) -> None:
    """End with a port in a cycle, which is collected at the very end."""
    port = portio.Port(backend=backend, thread_bound=kind == "thread_bound")
    here: list[Any] = [port, start_everything(port)]
    here.append(here)
    gc.disable()
    print("done", flush=True)


def daemons(backend: str) -> None:
    """End while daemon threads wait in every way there is."""
    global kept  # noqa: PLW0603
    port = portio.Port(backend=backend)
    kept = (port, start_everything(port))
    timer = portio.Timer(1000)
    port.submit(timer, queued=False)
    waits: list[Callable[[], object]] = [
        port.get,
        port.get_many,
        lambda: list(port),
        timer.wait,
        lambda: port.get(1000),
    ]
    threads = [threading.Thread(target=wait, daemon=True) for wait in waits]
    for thread in threads:
        thread.start()
    print("done", flush=True)


def bound_daemon(backend: str) -> None:
    """End while a daemon thread waits at its thread-bound port."""
    ready = threading.Event()

    def serve() -> None:
        with portio.Port(backend=backend, thread_bound=True) as port:
            kept = start_everything(port)
            ready.set()
            for _ in port:
                pass
            kept.clear()

    threading.Thread(target=serve, daemon=True).start()
    ready.wait()
    print("done", flush=True)


def at_exit(backend: str, kind: str) -> None:
    """Close the port in a function that atexit calls."""
    import atexit

    port = portio.Port(backend=backend, thread_bound=kind == "thread_bound")
    kept = start_everything(port)

    def close() -> None:
        port.close()
        kept.clear()

    atexit.register(close)
    print("done", flush=True)


def forgotten(backend: str, kind: str) -> None:
    """Forget a port: Python is told, and nothing is freed too early."""
    warnings: list[str] = []
    sys.unraisablehook = lambda unraisable: warnings.append(repr(unraisable.exc_value))
    handles_after = []
    for _ in range(20):
        ours, peer = socket.socketpair()
        buffer = bytearray(1 << 16)
        port = portio.Port(backend=backend, thread_bound=kind == "thread_bound")
        port.submit(portio.Recv(port.associate(ours), buffer))
        port.submit(portio.Timer(1000), queued=False)
        del port
        gc.collect()
        peer.send(b"x" * 1000)  # into memory that nobody waits for any more
        ours.close()
        peer.close()
        del buffer
        gc.collect()
        handles_after.append(len(handles.open_handles()))
    assert len(warnings) == 20, warnings
    assert all("ResourceWarning" in each and "Port" in each for each in warnings), warnings
    assert handles_after[-1] == handles_after[0], handles_after
    if os.name == "posix":
        assert handles_after[0] == 3, os.listdir("/proc/self/fd")  # the standard streams
    print("done", flush=True)


def forgotten_files(backend: str) -> None:
    """Files and pipes warn as Python's own do."""
    warnings: list[str] = []
    sys.unraisablehook = lambda unraisable: warnings.append(repr(unraisable.exc_value))
    portio.open(sys.argv[0])
    gc.collect()
    assert len(warnings) == 1, warnings
    ends = portio.pipe()
    del ends
    gc.collect()
    assert len(warnings) == 3, warnings
    assert all("ResourceWarning" in each for each in warnings), warnings
    print("done", flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
