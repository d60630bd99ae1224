"""A TCP echo server in trio, on trio's own streams."""

from __future__ import annotations

import argparse

import trio

from benchmarks.measuring import announce, limit_seconds

BUFFER = 64 * 1024


async def echo(stream: trio.SocketStream) -> None:
    """Send back what comes."""
    try:
        while data := await stream.receive_some(BUFFER):
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass


async def serve() -> None:
    """Serve until the process is ended."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    announce(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(echo, listeners)


def main() -> None:
    """Parse the command line, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=int)
    options = parser.parse_args()
    limit_seconds(options.seconds)
    trio.run(serve)


if __name__ == "__main__":
    main()
