"""The worker-thread server that every text on completion ports begins with.

    python examples/worker_thread_server.py [HOST [PORT [WORKERS]]]

What the texts call            is here
-----------------------------  ------------------------------------------------
CreateIoCompletionPort         portio.Port(), port.associate(socket, client)
per-handle data                Client, the `data` of the completion key
per-operation data             Receive and Reply: the OVERLAPPED, extended
AcceptEx, WSARecv, WSASend     portio.Accept, portio.Recv, portio.Send
GetQueuedCompletionStatus      `for done in port` in each worker
PostQueuedCompletionStatus     port.post(SHUTDOWN), once for each worker

The server sends back the lines that it receives, each with its number in front.
A line may arrive in any number of pieces, so there is state to keep for each
connection; and no lock guards it, because a connection has one operation
pending at a time: whichever worker takes its completion owns the connection
until it submits the next one.

Ctrl-C ends the server.
"""

from __future__ import annotations

import socket
import sys
import threading

import portio

SHUTDOWN = portio.CompletionKey("shutdown")
PIECE = 4096


class Client:
    """Per-handle data: what the server remembers about one connection."""

    def __init__(self, address: object) -> None:
        self.address = address
        self.unfinished = b""
        self.lines = 0

    def answer(self, piece: bytes) -> bytes:
        """The reply to another piece of the stream: its complete lines, numbered."""
        *lines, self.unfinished = (self.unfinished + piece).split(b"\n")
        numbered = []
        for line in lines:
            self.lines += 1
            numbered.append(b"%d %s\n" % (self.lines, line))
        return b"".join(numbered)


class Receive(portio.Recv):
    """Per-operation data of a receive: its memory, which it uses again and again."""

    def __init__(self, key: portio.CompletionKey) -> None:
        self.memory = bytearray(PIECE)
        super().__init__(key, self.memory)

    def piece(self) -> bytes:
        """What has been received."""
        return bytes(self.memory[: self.result()])


class Reply(portio.Send):
    """Per-operation data of a send: the receive that is to follow it."""

    def __init__(self, after: Receive, reply: bytes) -> None:
        super().__init__(after.key, reply)
        self.after = after


def serve(port: portio.Port) -> None:
    """One worker: take a completion, do what it asks for, ask for the next."""
    for done in port:
        if done.key is SHUTDOWN:
            return
        match done.operation:
            case portio.Accept() as accept:
                if done.error is None:
                    welcome(port, done.result())
                if done.last:  # it has failed; the listener lives
                    port.submit(accept)
            case portio.Recv() | portio.Send() if done.error is not None:
                dismiss(done.key, done.error)
            case Receive() as receive if done.nbytes == 0:
                dismiss(receive.key, None)
            case Receive() as receive:
                client = receive.key.data
                assert isinstance(client, Client)
                reply = client.answer(receive.piece())
                # A reply of no bytes would complete as well; it is only a detour.
                port.submit(Reply(receive, reply) if reply else receive)
            case Reply(after=receive):
                port.submit(receive)
            case stranger:
                raise AssertionError(f"{stranger!r} was never submitted here")


def welcome(port: portio.Port, connection: socket.socket) -> None:
    """Associate a new connection with the port, and start its first receive."""
    client = Client(connection.getpeername())
    port.submit(Receive(port.associate(connection, client)))


def dismiss(key: portio.CompletionKey | None, error: OSError | None) -> None:
    """Close a connection at its end, or when its client has gone."""
    assert key is not None
    assert isinstance(key.data, Client)
    key.close()
    # Written in one piece, so that the lines of two workers do not mix.
    sys.stderr.write(f"{key.data.address}: {key.data.lines} lines, {error or 'closed'}\n")


def main(host: str = "127.0.0.1", number: str = "0", workers: str = "4") -> None:
    with (
        socket.create_server((host, int(number)), backlog=128) as listener,
        portio.Port() as port,
    ):
        key = port.associate(listener)
        threads = [threading.Thread(target=serve, args=[port]) for _ in range(int(workers))]
        for thread in threads:
            thread.start()
        # Several accepts wait, so that a burst of clients meets open doors.
        port.submit(*(portio.Accept(key, multishot=True) for _ in range(16)))
        try:
            print("listening on {}:{}".format(*listener.getsockname()[:2]), flush=True)
            # A lock, and so a join, hears no Ctrl-C on Windows; a port does.  To this
            # one nothing is ever posted.
            with portio.Port() as keyboard:
                keyboard.get()
        except KeyboardInterrupt:
            # The packets are queued behind the completions that are there
            # already, so each worker finishes those before it goes home.
            for _ in threads:
                port.post(SHUTDOWN)
            for thread in threads:
                thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
