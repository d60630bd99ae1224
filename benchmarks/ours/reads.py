"""Reads of a file on a completion port, many in flight, by one thread or by several."""

from __future__ import annotations

import argparse
import itertools
import threading
from collections.abc import Iterator

import portio
from benchmarks.measuring import reads_arguments, report, take_mark
from benchmarks.ours import ports

FINISHED = portio.CompletionKey("finished")


class Reader:
    """A port, and as many reads as are to be in flight."""

    def __init__(
        self, port: portio.Port, file: portio.File, block: int, depth: int, workers: int
    ) -> None:
        key = port.associate(file)
        self.port = port
        self.block = block
        self.reads = [portio.Read(key, bytearray(block)) for _ in range(depth)]
        self.helpers = max(workers - 1, 0)

    def run(self, offsets: list[int]) -> None:
        """Read at all these offsets."""
        rest = iter(offsets)
        idle = itertools.count(1)
        helpers = [
            threading.Thread(target=self.serve, args=(rest, idle)) for _ in range(self.helpers)
        ]
        for helper in helpers:
            helper.start()
        for read, offset in zip(self.reads, rest, strict=False):
            read.offset = offset
        self.port.submit(*self.reads)
        self.serve(rest, idle)
        for helper in helpers:
            helper.join()
        self.port.get(0)  # the last FINISHED

    def serve(self, offsets: Iterator[int], idle: Iterator[int]) -> None:
        """Start the next read for each that has completed, until none is left.

        ``idle`` counts, over all threads, the reads that found nothing left to do.
        """
        port, block, depth = self.port, self.block, len(self.reads)
        while True:
            following = []
            for done in port.get_many():
                operation = done.operation
                if operation is None:
                    port.post(FINISHED)  # for the next thread
                    return
                assert isinstance(operation, portio.Read)
                if done.result() != block:
                    raise EOFError
                offset = next(offsets, None)
                if offset is not None:
                    operation.offset = offset
                    following.append(operation)
                elif next(idle) == depth:
                    port.post(FINISHED)
            port.submit(*following)


def main() -> None:
    """Read, and print the measurement."""
    parser = argparse.ArgumentParser()
    ports.add_arguments(parser)
    reads, options = reads_arguments(parser)
    with portio.open(reads.path) as file, ports.open_port(options) as port:
        reader = Reader(port, file, reads.block, reads.depth, options.workers)
        offsets = reads.offsets()
        reader.run(offsets[: reads.warm_up])
        offsets = offsets[reads.warm_up :]
        begin = take_mark()
        reader.run(offsets)
        report(begin, reads.count)


if __name__ == "__main__":
    main()
