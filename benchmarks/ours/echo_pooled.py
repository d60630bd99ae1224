"""A TCP echo server whose connections share a pool of buffers: one submission for each of them."""

from __future__ import annotations

import argparse

import portio
from benchmarks.measuring import limit_seconds
from benchmarks.ours import ports

BUFFERS = 64
SIZE = 64 * 1024


class Receive(portio.RecvMultishot):
    """Receives for a connection, from its first message to its last."""

    __slots__ = ("answer",)

    answer: portio.Send | None  # most connections of a large server are silent


def serve(port: portio.Port, pool: portio.BufferPool) -> None:
    """Take completions, and send back what came.

    Answers are quiet, as those of `benchmarks.ours.echo`; one that is still being sent when the
    next message is here is left to itself.
    """
    submit = port.submit
    for done in port:
        operation = done.operation
        if isinstance(operation, Receive):
            if done.nbytes:
                answer = operation.answer
                if answer is None or answer.pending:
                    answer = operation.answer = portio.Send(operation.key, b"")
                answer.buffer = done.result()
                submit(answer, quiet=True)
            else:
                operation.key.close()
        elif isinstance(operation, portio.AcceptKey):
            receive = Receive(done.result(), pool)
            receive.answer = None
            submit(receive)


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
