"""Programs that are interrupted while they wait."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable

import portio
from support.watch import wait_until_blocked


def waits(
    where: str, port: portio.Port, timeout: float | None, operation: portio.Operation[None]
) -> Callable[[], object]:
    """One way to wait for the given time."""
    match where:
        case "get":
            return lambda: port.get(timeout)
        case "get_many":
            return lambda: port.get_many(timeout=timeout)
        case "iteration":
            return lambda: next(iter(port))
        case "wait":
            port.submit(operation, queued=False)
            return lambda: operation.wait(timeout)
        case _:
            raise ValueError(where)


def interrupted(where: str, timeout: str, backend: str, kind: str) -> None:
    """Wait until Ctrl-C; then the port must work as before, with every packet there."""
    with portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port:
        limit = None if timeout == "None" else float(timeout)
        wait = waits(where, port, limit, portio.Timer(1000))
        for _ in range(3):
            print("ready", flush=True)
            try:
                wait()
            except KeyboardInterrupt:
                print("interrupted", time.monotonic(), flush=True)
        for index in range(100):
            port.post(None, index)
        taken = 0
        while taken < 100:
            for completion in port.get_many(timeout=30):
                assert completion.nbytes == taken
                taken += 1
    print("done", flush=True)


def pool(main_first: str, backend: str) -> None:
    """Ctrl-C in the main thread while other threads serve the same port."""
    stop = portio.CompletionKey("stop")
    taken: list[int] = []
    main_thread = threading.main_thread()
    with portio.Port(4, backend=backend) as port:

        def serve() -> None:
            for completion in port:
                if completion.key is stop:
                    break
                taken.append(completion.nbytes)
            port.post(stop)

        def begin() -> None:
            if main_first == "True":
                wait_until_blocked(main_thread)
            for worker in workers:
                worker.start()
            wait_until_blocked(*workers, main_thread)
            print("ready", flush=True)

        workers = [threading.Thread(target=serve) for _ in range(3)]
        beginner = threading.Thread(target=begin)
        beginner.start()
        try:
            port.get()
        except KeyboardInterrupt:
            print("interrupted", time.monotonic(), flush=True)
        beginner.join()
        for index in range(1000):
            port.post(None, index)
        port.post(stop)
        for worker in workers:
            worker.join()
    assert sorted(taken) == list(range(1000))
    print("done", flush=True)


def handled(where: str, backend: str, kind: str) -> None:
    """A handler that raises nothing shortens no wait, and ends none."""
    calls = 0

    def handle(number: int, frame: object) -> None:
        nonlocal calls
        calls += 1

    signal.signal(signal.SIGALRM, handle)
    with portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port:
        for timeout in (0.3, 0.0301):
            wait = waits(where, port, timeout, portio.Timer(1000))
            calls = 0
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            begun = time.monotonic()
            assert not wait()
            assert time.monotonic() - begun >= timeout
            assert calls
            signal.setitimer(signal.ITIMER_REAL, 0)
        # A wait without an end goes on until something comes.
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        port.submit(portio.Timer(0.2))
        calls = 0
        completion = port.get()
        assert completion is not None
        assert isinstance(completion.operation, portio.Timer)
        assert calls
        signal.setitimer(signal.ITIMER_REAL, 0)
    print("done")


def handler_uses_the_port(backend: str, kind: str) -> None:
    """A handler may post to the very port that waits."""

    def handle(number: int, frame: object) -> None:
        port.post(None, 42)

    signal.signal(signal.SIGALRM, handle)
    with portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port:
        for _ in range(20):
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            completion = port.get()
            assert completion is not None
            assert completion.nbytes == 42
    print("done")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
