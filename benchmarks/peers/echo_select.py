"""A TCP echo server on select.epoll: readiness with nothing between it and the program."""

from __future__ import annotations

import argparse
import select
import socket

from benchmarks.measuring import announce, limit_seconds

BUFFER = 64 * 1024


class Connection:
    """A client and what it has still to get."""

    def __init__(self, client: socket.socket) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = client
        self.waiting = b""

    def ready(self) -> bool:
        """Echo what there is; return False at the end of the stream."""
        try:
            if not self.waiting:
                self.waiting = self.client.recv(BUFFER)
                if not self.waiting:
                    return False
            self.waiting = self.waiting[self.client.send(self.waiting) :]
        except BlockingIOError:
            pass
        except ConnectionError:
            return False
        return True


def serve(listener: socket.socket) -> None:
    """Serve until the process is ended."""
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    connections: dict[int, Connection] = {}
    while True:
        for fd, _ in poll.poll():
            connection = connections.get(fd)
            if connection is None:
                client, _ = listener.accept()
                connections[client.fileno()] = Connection(client)
                poll.register(client, select.EPOLLIN)
                continue
            blocked = bool(connection.waiting)
            if not connection.ready():
                connection.client.close()
                del connections[fd]
            elif blocked != bool(connection.waiting):
                poll.modify(fd, select.EPOLLIN if blocked else select.EPOLLOUT)


def main() -> None:
    """Listen, say so, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=int)
    limit_seconds(parser.parse_args().seconds)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        announce(listener.getsockname()[1])
        serve(listener)


if __name__ == "__main__":
    main()
