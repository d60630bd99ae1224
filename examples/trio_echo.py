"""An echo server in trio.  It differs from one on trio's own streams in an import.

python trio_echo.py [--host HOST] [--port PORT] [--backend NAME]
"""

from __future__ import annotations

import argparse

import trio

from portio.trio import SocketStream, TrioPort, serve_tcp


async def echo(stream: SocketStream) -> None:
    """Sends back what comes, until the peer has sent everything."""
    try:
        async for data in stream:
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass  # the peer has gone; its own business


async def main(host: str, number: int, backend: str | None) -> None:
    # Without `on` the run's own port is used; this one is for the choice of backend.
    async with TrioPort(backend=backend) as port, trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[object]]) -> None:
            await serve_tcp(echo, number, host=host, on=port, task_status=task_status)

        for listener in await nursery.start(serve):
            address = listener.socket.getsockname()
            print(f"listening on {address[0]}:{address[1]}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7000)
    parser.add_argument("--backend")
    options = parser.parse_args()
    try:
        trio.run(main, options.host, options.port, options.backend)
    except* KeyboardInterrupt:
        pass
