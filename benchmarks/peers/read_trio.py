"""Reads of a file in trio's own ways, which take a thread for each call."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

import trio

from benchmarks.measuring import Reads, reads_arguments, report, take_mark


async def run(reads: Reads, style: str) -> None:
    """Read, and print the measurement."""
    descriptor = os.open(reads.path, os.O_RDONLY)

    async def by_thread(offsets: Iterator[int]) -> None:
        buffers = [bytearray(reads.block)]
        for offset in offsets:
            count = await trio.to_thread.run_sync(os.preadv, descriptor, buffers, offset)
            if count != reads.block:
                raise EOFError

    async def by_file(offsets: Iterator[int]) -> None:
        async with await trio.open_file(reads.path, "rb", buffering=0) as file:
            for offset in offsets:
                await file.seek(offset)
                if len(await file.read(reads.block)) != reads.block:
                    raise EOFError

    work = by_thread if style == "to_thread" else by_file

    async def read_all(offsets: list[int]) -> None:
        left = iter(offsets)
        async with trio.open_nursery() as nursery:
            for _ in range(reads.depth):
                nursery.start_soon(work, left)

    offsets = reads.offsets()
    await read_all(offsets[: reads.warm_up])
    offsets = offsets[reads.warm_up :]
    begin = take_mark()
    await read_all(offsets)
    report(begin, reads.count)


def main() -> None:
    """Parse the command line, and read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--style", choices=["to_thread", "open_file"], required=True)
    reads, options = reads_arguments(parser)
    trio.run(run, reads, options.style)


if __name__ == "__main__":
    main()
