"""A TCP echo server that sends each piece from the pool's own buffer: nothing is copied."""

from __future__ import annotations

import argparse

import portio
from benchmarks.measuring import limit_seconds
from benchmarks.ours import ports

BUFFERS = 64
SIZE = 64 * 1024


def serve(port: portio.Port, pool: portio.BufferPool) -> None:
    """Take completions, and send back what came.

    An answer is quiet, and nobody keeps it: it ends with the send, and then the buffer goes back.
    """
    submit = port.submit
    for done in port:
        operation = done.operation
        if isinstance(operation, portio.RecvLent):
            if done.nbytes:
                submit(portio.Send(operation.key, done.result()), quiet=True)
            else:
                operation.key.close()
        elif isinstance(operation, portio.AcceptKey):
            submit(portio.RecvLent(done.result(), pool))


def main() -> None:
    """Listen, say so, and serve until the process is ended."""
    parser = argparse.ArgumentParser()
    ports.add_arguments(parser)
    parser.add_argument("seconds", type=int)
    options = parser.parse_args()
    limit_seconds(options.seconds)

    with ports.listening_port(options) as port:
        serve(port, portio.BufferPool(port, BUFFERS, SIZE))


if __name__ == "__main__":
    main()
