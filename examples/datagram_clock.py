"""A clock over UDP: answers every datagram with the time, and ticks on its own.

    python examples/datagram_clock.py [HOST [PORT]]

Datagrams, timers and the keyboard in one loop.  Several receives are pending at
a time, so that a burst of questions finds room; each carries its own buffer.
The answer to a client that has gone away may come back as "port unreachable":
that is one completion with an error, and the next receive works as before.

Ctrl-C ends the clock.
"""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime

import portio

RECEIVES = 8


class Question(portio.RecvFrom):
    """One receive, with room for one datagram."""

    def __init__(self, key: portio.CompletionKey) -> None:
        super().__init__(key, bytearray(64))


class Answer(portio.SendTo):
    """One reply; the question is asked again when it has gone out."""

    def __init__(self, question: Question, address: portio.Address) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        super().__init__(question.key, now.encode(), address)
        self.question = question


class Tick(portio.Timer):
    """Tells the operator every so often how busy the clock was."""

    def __init__(self, seconds: float = 10.0) -> None:
        super().__init__(seconds)
        self.answered = 0


def serve(port: portio.Port, key: portio.CompletionKey) -> None:
    tick = Tick()
    port.submit(tick, *(Question(key) for _ in range(RECEIVES)))
    for done in port:
        match done.operation:
            case Question() as question if done.error is None:
                _, address = question.result()
                port.submit(Answer(question, address))
            case Question() as question:
                print(f"receive: {done.error}", file=sys.stderr)
                port.submit(question)
            case Answer(question=question):
                if done.error is None:
                    tick.answered += 1
                port.submit(question)
            case _:  # a tick
                print(f"{tick.answered} answers", file=sys.stderr)
                port.submit(tick)


def main(host: str = "127.0.0.1", number: str = "0") -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as clock,
        portio.Port(thread_bound=True) as port,
    ):
        clock.bind((host, int(number)))
        key = port.associate(clock)
        try:
            print("listening on {}:{}".format(*clock.getsockname()), flush=True)
            serve(port, key)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
