"""Packets from thread to thread by a completion port."""

from __future__ import annotations

import argparse
import threading

import portio
from benchmarks.measuring import limit_seconds, report, take_mark
from benchmarks.ours import ports

PACKET = portio.CompletionKey("packet")
STOP = portio.CompletionKey("stop")


def stream(options: argparse.Namespace, threads: int) -> None:
    """Pass packets from as many producers to as many consumers, which take them in batches."""
    count = options.count
    options.workers = threads if options.workers else 0
    start = threading.Barrier(2 * threads + 1)
    ready: list[portio.Port] = []

    def produce() -> None:
        start.wait()
        port = ready[0]
        for number in range(count // threads):
            port.post(PACKET, number)

    def consume() -> None:
        if options.workers == 0:  # a thread-bound port belongs to the thread that opens it
            ready.append(ports.open_port(options))
        start.wait()
        port = ready[0]
        while True:
            for packet in port.get_many():
                if packet.key is STOP:
                    port.post(STOP)  # for the next consumer
                    return

    if options.workers:
        ready.append(ports.open_port(options))
    producers = [threading.Thread(target=produce) for _ in range(threads)]
    consumers = [threading.Thread(target=consume) for _ in range(threads)]
    for thread in consumers + producers:
        thread.start()
    start.wait()
    begin = take_mark()
    for thread in producers:
        thread.join()
    ready[0].post(STOP)
    for thread in consumers:
        thread.join()
    report(begin, count)
    ready[0].close()


def round_trip(options: argparse.Namespace) -> None:
    """Pass a packet to and fro between two threads, each with its port."""
    rounds = options.count // 2
    ready = threading.Barrier(2)
    there: list[portio.Port] = []

    with ports.open_port(options) as here:

        def answer() -> None:
            with ports.open_port(options) as port:
                there.append(port)
                ready.wait()
                for _ in range(rounds):
                    port.get()
                    here.post(PACKET)
                ready.wait()

        worker = threading.Thread(target=answer)
        worker.start()
        ready.wait()
        port = there[0]
        begin = take_mark()
        for _ in range(rounds):
            port.post(PACKET)
            here.get()
        report(begin, options.count)
        ready.wait()
        worker.join()


def main() -> None:
    """Parse the command line, and run the case."""
    parser = argparse.ArgumentParser()
    ports.add_arguments(parser)
    parser.add_argument("case", choices=["1-to-1", "4-to-4", "round-trip"])
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=int)
    options = parser.parse_args()
    limit_seconds(options.seconds)
    match options.case:
        case "round-trip":
            round_trip(options)
        case case:
            stream(options, int(case[0]))


if __name__ == "__main__":
    main()
