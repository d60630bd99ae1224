"""A TCP echo server on a completion port, for one thread or for several."""

from __future__ import annotations

import argparse
import threading

import portio
from benchmarks.measuring import limit_seconds
from benchmarks.ours import ports


class Receive(portio.Recv):
    """Receives for a connection, from its first message to its last."""

    __slots__ = ("answer",)

    answer: Answer | None  # most connections of a large server are silent


class Answer(portio.Send):
    """Sends back what was received."""

    __slots__ = ("memory",)

    def __init__(self, receive: Receive) -> None:
        self.memory = memoryview(receive.buffer)  # type: ignore[arg-type]
        super().__init__(receive.key, self.memory)


def serve(port: portio.Port, room: int) -> None:
    """Take completions in batches, and start what follows from each.

    Every connection has a buffer of ``room`` bytes.

    Answers are quiet: nearly all of them end within `submit`, and the next receive follows at
    once.  A connection ends with a receive of no bytes: that is the end of the stream, or an
    error.  After a send that failed, the next receive is sure to tell.
    """
    submit = port.submit
    while True:
        for done in port.get_many():
            operation = done.operation
            if isinstance(operation, Receive):
                if size := done.nbytes:
                    answer = operation.answer
                    if answer is None:
                        answer = operation.answer = Answer(operation)
                    answer.buffer = answer.memory[:size]
                    submit(answer, quiet=True)
                    if answer.pending:
                        # The memory is still being sent: the next message goes elsewhere.
                        operation.buffer = bytearray(room)
                        operation.answer = None
                    submit(operation)
                else:
                    operation.key.close()
            elif isinstance(operation, portio.AcceptKey):
                receive = Receive(done.result(), bytearray(room))
                receive.answer = None
                submit(receive)


def main() -> None:
    """Listen, say so, and serve until the process is ended."""
    parser = argparse.ArgumentParser()
    ports.add_arguments(parser)
    parser.add_argument("--buffer", type=int, default=64 * 1024, help="bytes for each connection")
    parser.add_argument("seconds", type=int)
    options = parser.parse_args()
    limit_seconds(options.seconds)

    with ports.listening_port(options) as port:
        for _ in range(options.workers - 1):
            threading.Thread(target=serve, args=[port, options.buffer], daemon=True).start()
        serve(port, options.buffer)


if __name__ == "__main__":
    main()
