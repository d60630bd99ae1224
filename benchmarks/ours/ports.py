"""The port that the command line of a program asks for, and how a server begins with it."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import portio
from benchmarks.measuring import announce

ACCEPTS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let the user choose the backend and the kind of port."""
    parser.add_argument("--backend", required=True)
    parser.add_argument("--lazy", action="store_true", help="submissions may wait for the next get")
    parser.add_argument(
        "--workers", type=int, default=0, help="threads of a shared port; 0: a thread-bound port"
    )


def open_port(options: argparse.Namespace) -> portio.Port:
    """Make the port; as many threads may run as there are workers."""
    if options.workers:
        return portio.Port(options.workers, backend=options.backend)
    return portio.Port(backend=options.backend, thread_bound=True, lazy_submit=options.lazy)


@contextmanager
def listening_port(options: argparse.Namespace) -> Iterator[portio.Port]:
    """Make the port, with a listener whose accepts are submitted and whose address is told."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as listener,
        open_port(options) as port,
    ):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts has it too
        key = port.associate(listener)
        port.submit(*(portio.AcceptKey(key, multishot=True) for _ in range(ACCEPTS)))
        announce(listener.getsockname()[1])
        yield port
