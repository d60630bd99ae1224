"""Reads of a file by calls that block: one after the other, or in a pool of threads."""

from __future__ import annotations

import argparse
import itertools
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from benchmarks.measuring import Reads, reads_arguments, report, take_mark

THREADS = 32  # at most, as in Python's default pool


def pread(file: int, reads: Reads) -> Callable[[list[int]], None]:
    """Read one after the other, each into a new bytes object; keep as many as are in flight."""

    def run(offsets: list[int]) -> None:
        kept: deque[bytes] = deque(maxlen=reads.depth)
        for offset in offsets:
            data = os.pread(file, reads.block, offset)
            if len(data) != reads.block:
                raise EOFError
            kept.append(data)

    return run


def preadv(file: int, reads: Reads) -> Callable[[list[int]], None]:
    """Read one after the other, into as many buffers in turn as are in flight."""
    buffers = [[bytearray(reads.block)] for _ in range(reads.depth)]

    def run(offsets: list[int]) -> None:
        for offset, buffer in zip(offsets, itertools.cycle(buffers), strict=False):
            if os.preadv(file, buffer, offset) != reads.block:
                raise EOFError

    return run


def threads(file: int, reads: Reads) -> Callable[[list[int]], None]:
    """Read in a pool, with as many reads in flight as there are buffers."""
    pool = ThreadPoolExecutor(min(reads.depth, THREADS))
    buffers = [[bytearray(reads.block)] for _ in range(reads.depth)]

    def run(offsets: list[int]) -> None:
        flight: deque[tuple[Future[int], list[bytearray]]] = deque()
        free = deque(buffers)
        for offset in offsets:
            if not free:
                future, buffer = flight.popleft()
                if future.result() != reads.block:
                    raise EOFError
                free.append(buffer)
            buffer = free.popleft()
            flight.append((pool.submit(os.preadv, file, buffer, offset), buffer))
        while flight:
            flight.popleft()[0].result()

    return run


HOW = {"pread": pread, "preadv": preadv, "threads": threads}


def main() -> None:
    """Read, and print the measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--how", choices=HOW, required=True)
    reads, options = reads_arguments(parser)
    file = os.open(reads.path, os.O_RDONLY)
    run = HOW[options.how](file, reads)
    offsets = reads.offsets()
    run(offsets[: reads.warm_up])
    offsets = offsets[reads.warm_up :]
    begin = take_mark()
    run(offsets)
    report(begin, reads.count)


if __name__ == "__main__":
    main()
