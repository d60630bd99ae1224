"""Reads of a file under asyncio or uvloop: in the loop's pool of threads, or by caio."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
from collections.abc import Awaitable, Callable, Iterator

from benchmarks.measuring import Reads, reads_arguments, report, take_mark
from benchmarks.peers import loops

Read = Callable[[int, list[bytearray]], Awaitable[int]]


def executor(file: int, _reads: Reads) -> Read:
    """Read in the default pool of threads, into the buffer."""
    loop = asyncio.get_running_loop()

    def read(offset: int, buffers: list[bytearray]) -> Awaitable[int]:
        return loop.run_in_executor(None, os.preadv, file, buffers, offset)

    return read


def caio(file: int, reads: Reads, **options: bool) -> Read:
    """Read by caio's ring, which gives a new bytes object for each read."""
    module = importlib.import_module("caio.linux_uring_asyncio")
    context = module.AsyncioContext(max_requests=2 * reads.depth, **options)

    async def read(offset: int, _buffers: list[bytearray]) -> int:
        return len(await context.read(reads.block, file, offset))

    return read


def caio_plain(file: int, reads: Reads) -> Read:
    """Read by caio's ring, submitted by the process itself, in batches."""
    return caio(file, reads, sqpoll=False, deferred=True)


STYLES: dict[str, Callable[[int, Reads], Read]] = {
    "executor": executor,
    "caio": caio,
    "caio-plain": caio_plain,
}


async def run(reads: Reads, style: str) -> None:
    """Read, and print the measurement."""
    file = os.open(reads.path, os.O_RDONLY)
    read = STYLES[style](file, reads)
    buffers = [[bytearray(reads.block)] for _ in range(reads.depth)]

    async def work(offsets: Iterator[int], buffer: list[bytearray]) -> None:
        for offset in offsets:
            if await read(offset, buffer) != reads.block:
                raise EOFError

    async def read_all(offsets: list[int]) -> None:
        left = iter(offsets)
        await asyncio.gather(*(work(left, buffer) for buffer in buffers))

    offsets = reads.offsets()
    await read_all(offsets[: reads.warm_up])
    offsets = offsets[reads.warm_up :]
    begin = take_mark()
    await read_all(offsets)
    report(begin, reads.count)


def main() -> None:
    """Parse the command line, and read under the loop of that name."""
    parser = argparse.ArgumentParser()
    loops.add_argument(parser)
    parser.add_argument("--style", choices=STYLES, required=True)
    reads, options = reads_arguments(parser)
    with asyncio.Runner(loop_factory=loops.factory(options.loop)) as runner:
        runner.run(run(reads, options.style))


if __name__ == "__main__":
    main()
