"""Calls from thread to thread by ``call_soon_threadsafe``, on asyncio or uvloop."""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import Callable

from benchmarks.measuring import limit_seconds, report, take_mark
from benchmarks.peers import loops

Factory = Callable[[], asyncio.AbstractEventLoop]


def stream(make: Factory, count: int) -> None:
    """Have one thread post ``count`` calls to the loop of another."""
    loop = make()
    got = 0

    def get(_: int) -> None:
        nonlocal got
        got += 1
        if got == count:
            loop.stop()

    def produce() -> None:
        for number in range(count):
            loop.call_soon_threadsafe(get, number)

    worker = threading.Thread(target=produce)
    begin = take_mark()
    worker.start()
    loop.run_forever()
    report(begin, count)
    worker.join()


def round_trip(make: Factory, count: int) -> None:
    """Pass a call to and fro between two loops, each in its thread."""
    here, there = make(), make()
    left = count // 2

    def bounce() -> None:
        here.call_soon_threadsafe(get)

    def get() -> None:
        nonlocal left
        left -= 1
        if left > 0:
            there.call_soon_threadsafe(bounce)
        else:
            there.call_soon_threadsafe(there.stop)
            here.stop()

    worker = threading.Thread(target=there.run_forever)
    worker.start()
    begin = take_mark()
    there.call_soon_threadsafe(bounce)
    here.run_forever()
    report(begin, count)
    worker.join()


def main() -> None:
    """Parse the command line, and run the case."""
    parser = argparse.ArgumentParser()
    loops.add_argument(parser)
    parser.add_argument("--style", choices=["threadsafe"], required=True)
    parser.add_argument("case", choices=["1-to-1", "round-trip"])
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=int)
    options = parser.parse_args()
    limit_seconds(options.seconds)
    run = {"1-to-1": stream, "round-trip": round_trip}[options.case]
    run(loops.factory(options.loop), options.count)


if __name__ == "__main__":
    main()
