"""Opens many connections, says something on each, and waits for the echo.

Arguments: port, number of connections.
Lines: "connected"; then, when it is told to go on, "echoed".
"""

from __future__ import annotations

import socket
import sys


def main(port: int, count: int) -> None:
    """Connect one after the other, then talk to all at the same time."""
    connections = []
    for index in range(count):
        sock = socket.create_connection(("127.0.0.1", port))
        connections.append((sock, b"%016d" % index))
    print("connected", flush=True)
    sys.stdin.readline()
    for sock, message in connections:
        sock.sendall(message)
    for sock, message in connections:
        assert sock.recv(64) == message
    print("echoed", flush=True)
    sys.stdin.readline()
    for sock, _ in connections:
        sock.shutdown(socket.SHUT_WR)
    for sock, _ in connections:
        assert sock.recv(64) == b""
        sock.close()
    print("closed", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
