"""Reads of a file in trio, on a port of its run: a task for each that is in flight."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import trio

import portio
from benchmarks.measuring import Reads, reads_arguments, report, take_mark
from portio.trio import BinaryFile, TrioPort, open_file


async def run(reads: Reads, backend: str, how: str) -> None:
    """Read, and print the measurement."""
    buffers = [bytearray(reads.block) for _ in range(reads.depth)]

    async with TrioPort(backend=backend) as port:
        file: BinaryFile = await open_file(reads.path, "rb", on=port)
        key = file._key

        async def by_operation(offsets: Iterator[int], buffer: bytearray) -> None:
            read = portio.Read(key, buffer)
            for offset in offsets:
                read.offset = offset
                if await port.run(read) != reads.block:
                    raise EOFError

        async def by_file(offsets: Iterator[int], buffer: bytearray) -> None:
            for offset in offsets:
                if await file.readinto_at(offset, buffer) != reads.block:
                    raise EOFError

        work = by_operation if how == "operation" else by_file

        async def read_all(offsets: list[int]) -> None:
            left = iter(offsets)
            async with trio.open_nursery() as nursery:
                for buffer in buffers:
                    nursery.start_soon(work, left, buffer)

        offsets = reads.offsets()
        await read_all(offsets[: reads.warm_up])
        offsets = offsets[reads.warm_up :]
        begin = take_mark()
        await read_all(offsets)
        report(begin, reads.count)
        await file.aclose()


def main() -> None:
    """Parse the command line, and read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--how", choices=["operation", "file"], required=True)
    reads, options = reads_arguments(parser)
    trio.run(run, reads, options.backend, options.how)


if __name__ == "__main__":
    main()
