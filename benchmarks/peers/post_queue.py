"""Objects from thread to thread by the queues of the standard library."""

from __future__ import annotations

import argparse
import queue
import threading

from benchmarks.measuring import limit_seconds, report, take_mark

KINDS: dict[str, type[queue.Queue[object] | queue.SimpleQueue[object]]] = {
    "Queue": queue.Queue,
    "SimpleQueue": queue.SimpleQueue,
}
STOP = object()


def stream(kind: str, threads: int, count: int) -> None:
    """Pass ``count`` objects from as many producers to as many consumers."""
    channel = KINDS[kind]()
    start = threading.Barrier(2 * threads + 1)

    def produce() -> None:
        start.wait()
        for number in range(count // threads):
            channel.put(number)
        channel.put(STOP)

    def consume() -> None:
        start.wait()
        while channel.get() is not STOP:
            pass

    workers = [threading.Thread(target=one) for one in (produce, consume) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    begin = take_mark()
    for worker in workers:
        worker.join()
    report(begin, count)


def round_trip(kind: str, count: int) -> None:
    """Pass an object to and fro: two of the ``count`` for each round."""
    there, back = KINDS[kind](), KINDS[kind]()

    def answer() -> None:
        for _ in range(count // 2):
            back.put(there.get())

    worker = threading.Thread(target=answer)
    worker.start()
    begin = take_mark()
    for number in range(count // 2):
        there.put(number)
        back.get()
    report(begin, count)
    worker.join()


def main() -> None:
    """Parse the command line, and run the case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("case", choices=["1-to-1", "4-to-4", "round-trip"])
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=int)
    options = parser.parse_args()
    limit_seconds(options.seconds)
    match options.case:
        case "round-trip":
            round_trip(options.kind, options.count)
        case case:
            stream(options.kind, int(case[0]), options.count)


if __name__ == "__main__":
    main()
