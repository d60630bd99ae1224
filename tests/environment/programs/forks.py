"""Programs that fork while they have a port."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import portio

HANG = 30  # seconds after which a child counts as hung


def in_child(body: Callable[[], None]) -> None:
    """Fork; the child runs `body` and ends in the ordinary way, and must succeed."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        # Ends a child that hangs, also one that hangs in its exit; where, stderr tells.
        faulthandler.register(signal.SIGALRM, chain=True)
        signal.alarm(HANG)
        body()
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with status {status:#x}"


def every_use(backend: str, kind: str) -> None:
    """In the child each use raises; in the parent everything goes on."""
    bound = kind == "thread_bound"
    port = portio.Port(backend=backend, thread_bound=bound)
    other = portio.Port(backend=backend, thread_bound=bound)
    ours, peer = socket.socketpair()
    spare, spare_peer = socket.socketpair()
    key = port.associate(ours)
    queued = portio.Recv(key, bytearray(8))
    unqueued = portio.Timer(0.01)
    port.submit(queued)
    port.submit(unqueued, queued=False)
    port.post(None, 5)
    port.fileno()

    def blocking() -> None:
        with port.blocking():
            pass

    uses: list[Callable[[], Any]] = [
        lambda: port.get(0),
        lambda: port.get_many(timeout=0),
        lambda: next(iter(port)),
        port.post,
        lambda: port.associate(spare),
        lambda: port.disassociate(key),
        lambda: port.submit(portio.Recv(key, bytearray(8))),
        lambda: port.submit(portio.Timer(1)),
        lambda: port.submit(portio.Timer(1), queued=False),
        port.flush,
        port.fileno,
        blocking,
        key.close,
        queued.cancel,
        lambda: unqueued.wait(0),
        other.post,
        port.close,
    ]

    def body() -> None:
        for number, use in enumerate(uses):
            try:
                use()
            except RuntimeError as error:
                if "fork" in str(error):
                    continue
                raise
            raise AssertionError(f"use {number} raises nothing")
        for sock in (ours, peer, spare, spare_peer):
            sock.close()

    in_child(body)
    completion = port.get(HANG)
    assert completion is not None
    assert completion.nbytes == 5
    peer.send(b"hello")
    completion = port.get(HANG)
    assert completion is not None
    assert completion.operation is queued
    assert completion.result() == 5
    assert unqueued.wait(HANG) is not None
    port.disassociate(key)
    port.close()
    other.close()
    for sock in (ours, peer, spare, spare_peer):
        sock.close()
    print("done")


def dropped_in_child(backend: str, kind: str) -> None:
    """The child forgets the port, which closes nothing of the parent's."""
    ports = [portio.Port(backend=backend, thread_bound=kind == "thread_bound")]
    ours, peer = socket.socketpair()
    ports[0].submit(portio.Recv(ports[0].associate(ours), bytearray(8)))

    def body() -> None:
        ports.clear()
        gc.collect()
        ours.close()
        peer.close()

    in_child(body)
    peer.send(b"hello")
    completion = ports[0].get(HANG)
    assert completion is not None
    assert completion.result() == 5
    ports[0].close()
    ours.close()
    peer.close()
    print("done")


def unwinding(backend: str, kind: str) -> None:
    """A child that leaves the parent's `with` block has nothing to complain about."""
    with portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port:
        port.submit(portio.Timer(0.01))
        in_child(lambda: None)
        assert port.get(HANG) is not None
    print("done")


def while_another_waits(backend: str) -> None:
    """Fork while a thread is in get; that thread goes on in the parent."""
    port = portio.Port(2, backend=backend)
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.extend(each.nbytes for each in port))
    thread.start()
    assert thread.native_id is not None
    wait_until_asleep(thread.native_id)

    def body() -> None:
        try:
            port.get(0)
        except RuntimeError:
            return
        raise AssertionError("raises nothing")

    in_child(body)
    for index in range(10):
        port.post(None, index)
    while len(taken) < 10:
        time.sleep(0.001)
    port.close()
    thread.join()
    assert taken == list(range(10))
    print("done")


def wait_until_asleep(thread: int) -> None:
    """Until the kernel calls this thread asleep three times in a row."""
    asleep = 0
    while asleep < 3:
        with open(f"/proc/self/task/{thread}/stat") as file:
            asleep = asleep + 1 if file.read().rpartition(")")[2].split()[0] == "S" else 0
        time.sleep(0.01)


def works(backend: str, *, thread_bound: bool) -> None:
    """A port of the child's own works."""
    with portio.Port(backend=backend, thread_bound=thread_bound) as port:
        ours, peer = socket.socketpair()
        with ours, peer:
            port.submit(portio.Recv(port.associate(ours), bytearray(8)))
            peer.send(b"child")
            completion = port.get(HANG)
            assert completion is not None
            assert completion.result() == 5


def busy_parent(backend: str) -> None:
    """Fork in the middle of everything: no lock is left locked in the child."""
    stop = threading.Event()
    port = portio.Port(2, backend=backend)

    def post() -> None:
        while not stop.is_set():
            port.post()
            time.sleep(0)

    def take() -> None:
        while not stop.is_set():
            port.get_many(timeout=0.001)

    def come_and_go() -> None:
        while not stop.is_set():
            with portio.Port(backend=backend) as brief:
                brief.submit(portio.Timer(0))
                brief.get(HANG)

    threads = [
        threading.Thread(target=each, daemon=True) for each in (post, take, take, come_and_go)
    ]
    for thread in threads:
        thread.start()
    for turn in range(30):

        def body(turn: int = turn) -> None:
            works(backend, thread_bound=turn % 2 == 1)

        in_child(body)
    stop.set()
    for thread in threads:
        thread.join()
    port.close()
    print("done")


def probing_parent(backend: str) -> None:
    """Fork while a thread asks what the system can do, as each new port does; also the first."""
    stop = threading.Event()
    native = importlib.import_module(f"portio.backends._{backend}")

    def probe() -> None:
        native.lib.portio_probe_system(native.ffi.new("portio_probe *"))

    def ask() -> None:
        while not stop.is_set():
            probe()

    # One is enough: it is in the middle of a probe most of the time that this thread has the GIL.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    for _ in range(60):
        in_child(probe)
    stop.set()
    thread.join()
    print("done")


def child_process(backend: str) -> None:
    """What the process of `processes` does."""
    works(backend, thread_bound=False)
    works(backend, thread_bound=True)


def processes(backend: str, kind: str) -> None:
    """multiprocessing's fork start method beside an open port."""
    context = multiprocessing.get_context("fork")
    with portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port:
        port.submit(portio.Timer(0.01))
        for _ in range(3):
            process = context.Process(target=child_process, args=(backend,))
            process.start()
            process.join(HANG)
            assert process.exitcode == 0
            process.close()
        assert port.get(HANG) is not None
    print("done")


def inheritance(backend: str, kind: str) -> None:
    """A program that is started sees none of the port's descriptors."""
    with portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port:
        port.fileno()
        ours, peer = socket.socketpair()
        with ours, peer, portio.open(sys.argv[0]) as file:
            port.submit(portio.Recv(port.associate(ours), bytearray(8)))
            port.submit(portio.Read(port.associate(file), bytearray(100_000)))
            port.get(HANG)
            reader, writer = portio.pipe()
            with reader, writer, socket.create_server(("127.0.0.1", 0)) as listener:
                port.submit(portio.Accept(port.associate(listener)))
                with socket.create_connection(listener.getsockname()):
                    completion = port.get(HANG)
                    assert completion is not None
                    with completion.result():
                        script = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
                        output = subprocess.run(
                            [sys.executable, "-c", script],
                            close_fds=False,
                            check=True,
                            capture_output=True,
                            text=True,
                        ).stdout
    assert output.strip() == "[0, 1, 2, 3]", output  # 3 is the listing itself
    print("done")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
