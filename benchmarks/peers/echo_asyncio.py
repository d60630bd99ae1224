"""A TCP echo server on asyncio or uvloop, in each of asyncio's styles."""

from __future__ import annotations

import argparse
import asyncio
import socket
from typing import cast

from benchmarks.measuring import announce, limit_seconds
from benchmarks.peers import loops

BUFFER = 64 * 1024


class Echo(asyncio.Protocol):
    """The callback style: the loop reads, and the transport sends at once if it can."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Send back what came."""
        self.transport.write(data)


async def protocol(listener: socket.socket) -> None:
    """Serve by callbacks."""
    server = await asyncio.get_running_loop().create_server(Echo, sock=listener, backlog=1024)
    await server.serve_forever()


async def streams(listener: socket.socket) -> None:
    """Serve by awaitable streams."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(BUFFER):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(converse, sock=listener, limit=BUFFER, backlog=1024)
    await server.serve_forever()


async def sock(listener: socket.socket) -> None:
    """Serve by awaitable operations on plain sockets: what is nearest to completions."""
    loop = asyncio.get_running_loop()

    async def converse(client: socket.socket) -> None:
        with client:
            try:
                while data := await loop.sock_recv(client, BUFFER):
                    await loop.sock_sendall(client, data)
            except ConnectionError:
                pass

    conversations = set()
    while True:
        client, _ = await loop.sock_accept(listener)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(converse(client))
        conversations.add(task)
        task.add_done_callback(conversations.discard)


STYLES = {"protocol": protocol, "streams": streams, "sock": sock}


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    loops.add_argument(parser)
    parser.add_argument("--style", choices=STYLES, required=True)
    parser.add_argument("seconds", type=int)
    options = parser.parse_args()
    limit_seconds(options.seconds)

    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setblocking(False)
        announce(listener.getsockname()[1])
        with asyncio.Runner(loop_factory=loops.factory(options.loop)) as runner:
            runner.run(STYLES[options.style](listener))


if __name__ == "__main__":
    main()
