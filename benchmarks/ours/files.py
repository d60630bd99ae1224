"""A whole file read, or copied, in blocks of which several are in flight on a port."""

from __future__ import annotations

import argparse
import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack

import portio
from benchmarks.measuring import files_arguments, report, take_mark


class Fetch(portio.Read):
    """Reads a block; in a copy, ``store`` writes it."""

    def __init__(
        self, source: portio.CompletionKey, target: portio.CompletionKey | None, block: int
    ) -> None:
        self.memory = memoryview(mmap.mmap(-1, block))  # on a page, for direct I/O
        super().__init__(source, self.memory)
        self.store = None if target is None else Store(target, self)


class Store(portio.Write):
    """Writes what was read."""

    def __init__(self, target: portio.CompletionKey, fetch: Fetch) -> None:
        super().__init__(target, fetch.memory)
        self.fetch = fetch


def move(port: portio.Port, fetches: list[Fetch], offsets: Iterator[int]) -> int:
    """Read a block at each offset, and write it where that is asked for; give the bytes read."""
    total = pending = 0
    for fetch, offset in zip(fetches, offsets, strict=False):
        fetch.offset = offset
        port.submit(fetch)
        pending += 1
    while pending:
        for done in port.get_many():
            operation = done.operation
            size = done.result()
            if isinstance(operation, Fetch):
                total += size
                if (store := operation.store) is not None:
                    store.offset = operation.offset
                    store.buffer = operation.memory[:size]
                    port.submit(store)
                    continue
            else:
                assert isinstance(operation, Store)
                operation = operation.fetch
            following = next(offsets, None)
            if following is None:
                pending -= 1
            else:
                operation.offset = following
                port.submit(operation)
    return total


def main() -> None:
    """Read or copy, and print the measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--depth", type=int, required=True)
    parser.add_argument("--registered", action="store_true")
    options = files_arguments(parser)
    with portio.Port(backend=options.backend, thread_bound=True, lazy_submit=True) as port:
        begin = take_mark()
        with ExitStack() as stack:
            direct = options.direct
            source = stack.enter_context(portio.open(options.source, direct=direct))
            target = None
            if options.work == "copy":
                copy = stack.enter_context(portio.open(options.target, "w", direct=direct))
                target = port.associate(copy)
            key = port.associate(source)
            fetches = [Fetch(key, target, options.block) for _ in range(options.depth)]
            if options.registered:
                for fetch in fetches:
                    known = stack.enter_context(portio.RegisteredBuffer(port, fetch.memory))
                    if known.error is not None:
                        raise known.error
            size = source.size()
            total = move(port, fetches, iter(range(0, size, options.block)))
        report(begin, total)
    assert total == os.stat(options.source).st_size


if __name__ == "__main__":
    main()
