"""Many operations pending on a completion port, and the memory that they take."""

from __future__ import annotations

import argparse
from typing import Any

import portio
from benchmarks.measuring import limit_seconds, print_sample, resident_bytes, socket_pairs
from benchmarks.ours import ports


def receives(port: portio.Port, count: int) -> None:
    """Have a receive pending on each of many sockets."""
    pairs = socket_pairs(count)
    buffers = [bytearray(64) for _ in pairs]
    start = resident_bytes()
    keys = [port.associate(pair[0]) for pair in pairs]
    ready = resident_bytes()
    operations = [portio.Recv(key, buffer) for key, buffer in zip(keys, buffers, strict=True)]
    submit(port, operations)
    after = resident_bytes()
    print_sample(count=len(pairs), operation=after - ready, handle=ready - start)


def timers(port: portio.Port, count: int) -> None:
    """Have many timers pending."""
    start = resident_bytes()
    operations = [portio.Timer(3600) for _ in range(count)]
    submit(port, operations)
    print_sample(count=count, operation=resident_bytes() - start, handle=0)


def submit(port: portio.Port, operations: list[Any]) -> None:
    """Start the operations, one by one, as they come in a program that waits for many."""
    for operation in operations:
        port.submit(operation)
    port.flush()


CASES = {"receives": receives, "timers": timers}


def main() -> None:
    """Parse the command line, and run the case."""
    parser = argparse.ArgumentParser()
    ports.add_arguments(parser)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=int)
    options = parser.parse_args()
    limit_seconds(options.seconds)
    with ports.open_port(options) as port:
        CASES[options.case](port, options.count)


if __name__ == "__main__":
    main()
