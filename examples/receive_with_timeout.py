"""A receive with a time limit: two operations, of which the first to complete wins.

A completion port knows no time-out of a single operation.  It needs none: a
Timer completes through the same port, and cancelling is a request that each
operation answers with exactly one completion, whoever wins the race.

The program talks to itself over a connection: a first receive that is answered
in time, then one that is not.
"""

from __future__ import annotations

import socket
from contextlib import suppress

import portio


class LimitedReceive(portio.Recv):
    """A receive that is cancelled when its time is up."""

    def __init__(self, key: portio.CompletionKey, memory: bytearray, seconds: float) -> None:
        super().__init__(key, memory)
        self.memory = memory
        self.limit = Limit(self, seconds)

    def start(self, port: portio.Port) -> None:
        port.submit(self, self.limit)


class Limit(portio.Timer):
    """The time limit of `receive`."""

    def __init__(self, receive: LimitedReceive, seconds: float) -> None:
        super().__init__(seconds)
        self.receive = receive


def limited(port: portio.Port, operation: LimitedReceive) -> bytes | None:
    """Carry out a receive with its limit; None when the time was up."""
    operation.start(port)
    answer: bytes | None = None
    for _ in range(2):  # the receive and its limit: one completion each
        done = port.get()
        assert done is not None
        match done.operation:
            case Limit(receive=receive):
                if done.error is None:  # it ran out, and was not cancelled below
                    receive.cancel()
            case _:
                operation.limit.cancel()
                with suppress(portio.OperationCancelledError):
                    answer = bytes(operation.memory[: operation.result()])
    return answer


def main() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, portio.Port() as port:
        key = port.associate(ours)
        theirs.send(b"in time")
        print("first receive:", limited(port, LimitedReceive(key, bytearray(100), 60)))
        print("second receive:", limited(port, LimitedReceive(key, bytearray(100), 0.05)))
        # The cancelled receive has taken nothing: what comes later is still there.
        theirs.send(b"late")
        print("third receive:", limited(port, LimitedReceive(key, bytearray(100), 60)))


if __name__ == "__main__":
    main()
