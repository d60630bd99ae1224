"""For the programs that measure themselves: marks of time, and the line of JSON.

Used by the programs of ``ours`` and ``peers``; peers/program.h and peers/reads.h are the
same for C.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Mark:
    """A moment: the time, and the processor time of this process so far."""

    wall: float
    cpu: float


def take_mark() -> Mark:
    """Note the moment."""
    return Mark(time.perf_counter(), time.process_time())


def report(begin: Mark, count: int) -> None:
    """Print what has passed since ``begin``, when ``count`` things were done."""
    end = take_mark()
    print_sample(count=count, wall=end.wall - begin.wall, cpu=end.cpu - begin.cpu)


def print_sample(**figures: float) -> None:
    """Print the line that the harness reads."""
    print(json.dumps(figures), flush=True)


def announce(port: int) -> None:
    """Print what the harness expects of every server as its first line."""
    print(f"listening on 127.0.0.1:{port}", flush=True)


def limit_seconds(seconds: int) -> None:
    """End the process after that time, by the default action of the alarm."""
    signal.alarm(seconds)


def resident_bytes() -> int:
    """Give the memory of this process that is in use, kernel objects left out."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def socket_pairs(count: int) -> list[tuple[socket.socket, socket.socket]]:
    """Give as many connected pairs, or as the limit on descriptors allows; not blocking."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    pairs = [socket.socketpair() for _ in range(min(count, (most - 100) // 2))]
    for pair in pairs:
        pair[0].setblocking(False)
    return pairs


@dataclass(frozen=True)
class Reads:
    """The arguments of the programs that read a file, and which blocks they read."""

    path: str
    block: int
    depth: int
    count: int

    @property
    def warm_up(self) -> int:
        """Give the number of reads before the measurement."""
        return self.count // 10 + self.depth

    def offsets(self) -> list[int]:
        """Give the offset of every read, warm-up included: those of peers/reads.h."""
        blocks = os.stat(self.path).st_size // self.block
        count = self.warm_up + self.count
        state, offsets = 0, []
        for _ in range(count):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            offsets.append((state >> 33) % blocks * self.block)
        return offsets


def reads_arguments(parser: argparse.ArgumentParser) -> tuple[Reads, argparse.Namespace]:
    """Parse the command line that peers/reads.h has, with the parser's own options."""
    parser.add_argument("path")
    parser.add_argument("block", type=int)
    parser.add_argument("depth", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=int)
    options = parser.parse_args()
    limit_seconds(options.seconds)
    return Reads(options.path, options.block, options.depth, options.count), options


def files_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line of the programs that read or copy a whole file."""
    parser.add_argument("work", choices=["read", "copy"])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("block", type=int)
    parser.add_argument("--direct", action="store_true", help="past the page cache")
    parser.add_argument("seconds", type=int)
    options = parser.parse_args()
    limit_seconds(options.seconds)
    return options
