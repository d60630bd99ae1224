"""The port that the command line of a program asks for."""

from __future__ import annotations

import argparse

import portio


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
