"""What a type checker sees of portio.trio.  Checked by mypy, never run."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any, assert_type

import trio

import portio
from portio.trio import (
    BinaryFile,
    PipeReceiveStream,
    PipeSendStream,
    SocketListener,
    SocketStream,
    TextFile,
    TrioPort,
    copy_file,
    current_port,
    open_file,
    open_pipe,
    open_tcp_listeners,
    open_tcp_stream,
    run,
    send_file,
    serve_tcp,
)


async def operations(key: portio.CompletionKey) -> None:
    assert_type(await run(portio.Recv(key, bytearray(1))), int)
    assert_type(await run(portio.Accept(key)), socket.socket)
    async with TrioPort(backend="epoll") as port:
        assert_type(port, TrioPort)
        assert_type(await port.run(portio.Timer(1)), None)
        assert_type(await port.complete(portio.Send(key, b"")), portio.Completion[int])
        assert_type(await port.get(), portio.Completion[Any])
        async for packet in port:
            assert_type(packet, portio.Completion[Any])
        assert_type(port.port, portio.Port)
    assert_type(current_port(), TrioPort)


async def handler(stream: SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def streams(port: TrioPort) -> None:
    stream = await open_tcp_stream("localhost", 80, local_address=None, on=port)
    assert_type(stream, SocketStream)
    half: trio.abc.HalfCloseableStream = stream
    tls = trio.SSLStream(half, ssl.create_default_context())
    assert_type(await stream.receive_some(10), bytes)
    assert_type(stream.getsockopt(1, 2), int)
    assert_type(stream.getsockopt(1, 2, 3), bytes)
    listeners = await open_tcp_listeners(0, host="127.0.0.1", backlog=5)
    assert_type(listeners, list[SocketListener])
    assert_type(await listeners[0].accept(), SocketStream)
    await serve_tcp(handler, 0)
    await trio.serve_listeners(handler, listeners)
    assert_type(open_pipe(), tuple[PipeSendStream, PipeReceiveStream])
    del tls


async def files(path: Path, stream: trio.abc.SendStream, mode: str) -> None:
    text = await open_file(path)
    assert_type(text, TextFile)
    assert_type(await text.read(), str)
    assert_type(await text.readlines(), list[str])
    async with await open_file(path, "rb+") as file:
        assert_type(file, BinaryFile)
        assert_type(await file.read(1), bytes)
        assert_type(await file.read_at(0, 1), bytes)
        assert_type(await file.write_at(0, [b"a", bytearray(1)]), int)
        assert_type([line async for line in file], list[bytes])
        assert_type(await send_file(stream, file, 0, 10), int)
    assert_type(await open_file(path, mode), TextFile | BinaryFile)
    await open_file(path, "rb", encoding="utf-8")
    assert_type(await copy_file(path, "target"), int)
