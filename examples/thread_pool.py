"""A completion port as a thread pool: posted packets, and a limit on running threads.

The oldest trick with completion ports needs no I/O at all: `post` puts a packet
into the port's queue, and the threads that wait on the port take them one by
one, at most `concurrency` of them running at a time.  A task that is going to
wait for something else says so with `port.blocking()`, and its place goes to
another thread meanwhile.

The program hashes the files that are named on its command line, one task each.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable

import portio

THREADS = 8
STOP = portio.CompletionKey("stop")


class Pool:
    """Threads that run the functions that are put into their port."""

    def __init__(self, threads: int = THREADS, running: int = 0) -> None:
        self.port = portio.Port(concurrency=running)
        self.threads = [threading.Thread(target=self._work) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self, task: Callable[[], object]) -> None:
        self.port.post(payload=task)

    def finish(self) -> None:
        """Wait until every task that was put in before has been carried out."""
        for _ in self.threads:
            self.port.post(STOP)
        for thread in self.threads:
            thread.join()
        self.port.close()

    def _work(self) -> None:
        for done in self.port:
            if done.key is STOP:
                return
            task = done.payload
            assert callable(task)
            task()


def main() -> None:
    pool = Pool()

    def digest(path: str) -> None:
        with pool.port.blocking(), open(path, "rb") as file:  # the disk may keep us waiting
            data = file.read()
        # Written in one piece, so that the lines of two threads do not mix.
        sys.stdout.write(f"{hashlib.sha256(data).hexdigest()} {path}\n")

    for path in sys.argv[1:]:
        pool.run(lambda path=path: digest(path))  # type: ignore[misc]
    pool.finish()


if __name__ == "__main__":
    main()
