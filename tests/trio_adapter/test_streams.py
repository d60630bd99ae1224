"""Sockets and pipes are streams as trio's own: trio's checks say so."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import (
    assert_checkpoints,
    check_half_closeable_stream,
    check_one_way_stream,
    open_stream_to_socket_listener,
    wait_all_tasks_blocked,
)

import portio
from portio.trio import (
    PipeReceiveStream,
    PipeSendStream,
    SocketListener,
    SocketStream,
    TrioPort,
    open_pipe,
    open_tcp_listeners,
    open_tcp_stream,
    serve_tcp,
)
from support.net import Net, fill, pattern, reset
from support.trio_runs import in_trio

MakePort = Callable[[], AbstractAsyncContextManager[TrioPort]]


def clog(descriptor: int) -> None:
    """Write into a pipe until nothing more fits."""
    os.set_blocking(descriptor, False)
    try:
        while True:
            os.write(descriptor, b"x" * 65536)
    except BlockingIOError:
        pass
    os.set_blocking(descriptor, True)


async def tcp_pair(port: TrioPort) -> tuple[SocketStream, SocketStream]:
    (listener,) = await open_tcp_listeners(0, host="127.0.0.1", on=port)
    async with listener:
        ours = await open_tcp_stream(*listener.socket.getsockname(), on=port)
        return ours, await listener.accept()


def unix_pair(port: TrioPort) -> tuple[SocketStream, SocketStream]:
    if not hasattr(socket, "socketpair") or not hasattr(socket, "AF_UNIX"):
        pytest.skip("Python has no Unix sockets on this system")
    one, other = socket.socketpair()
    return SocketStream(one, on=port), SocketStream(other, on=port)


@pytest.mark.parametrize("family", ["tcp", "unix"])
@in_trio
async def test_trios_checks_of_sockets(trio_port: MakePort, family: str) -> None:
    async with trio_port() as port:

        async def make() -> tuple[SocketStream, SocketStream]:
            return await tcp_pair(port) if family == "tcp" else unix_pair(port)

        async def make_clogged() -> tuple[SocketStream, SocketStream]:
            one, other = await make()
            for stream in (one, other):
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
                fill(stream.socket)
            return one, other

        await check_half_closeable_stream(make, make_clogged)


@in_trio
async def test_trios_checks_of_pipes(trio_port: MakePort) -> None:
    async with trio_port() as port:

        async def make() -> tuple[PipeSendStream, PipeReceiveStream]:
            return open_pipe(on=port)

        async def make_clogged() -> tuple[PipeSendStream, PipeReceiveStream]:
            sender, receiver = open_pipe(on=port)
            clog(sender.fileno())
            return sender, receiver

        await check_one_way_stream(make, make_clogged)


@in_trio
async def test_an_echo_server(trio_port: MakePort) -> None:
    async def echo(stream: SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def client(address: Any, data: bytes) -> None:
        async with await open_tcp_stream(*address) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            received = b""
            while len(received) < len(data):
                received += await stream.receive_some(5000)
            assert received == data
            await stream.send_eof()
            assert await stream.receive_some() == b""

    async with trio_port() as port, trio.open_nursery() as nursery:

        async def serve(task_status: Any) -> None:
            await serve_tcp(echo, 0, host="127.0.0.1", on=port, task_status=task_status)

        (listener,) = await nursery.start(serve)
        async with trio.open_nursery() as clients:
            for number in range(20):
                address = listener.socket.getsockname()
                clients.start_soon(client, address, pattern(30_000, 1000 * number))
        nursery.cancel_scope.cancel()


@in_trio
async def test_trios_own_streams_at_the_other_end(trio_port: MakePort) -> None:
    async with trio_port() as port:
        (listener,) = await open_tcp_listeners(0, host="127.0.0.1", on=port)
        async with listener:
            theirs = await open_stream_to_socket_listener(listener)  # type: ignore[arg-type]
            ours = await listener.accept()
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert ours.socket.getpeername() == theirs.socket.getsockname()
        data = pattern(3_000_000)
        received = bytearray()
        async with ours, theirs, trio.open_nursery() as nursery:

            async def send() -> None:
                # A sequence of buffers goes out as one.
                await ours.send_all([data[:5], b"", memoryview(data)[5:]])
                await ours.send_eof()

            nursery.start_soon(send)
            async for chunk in theirs:
                received += chunk
        assert received == data


async def send_until_it_fails(stream: SocketStream) -> None:
    while True:
        await stream.send_all(b"x")


@in_trio
async def test_a_broken_connection(trio_port: MakePort, net: Net) -> None:
    async with trio_port() as port:
        ours, peer = net.pair()
        async with SocketStream(ours, on=port) as stream:
            reset(peer)
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.receive_some()
            assert isinstance(caught.value.__cause__, ConnectionResetError)
            with pytest.raises(trio.BrokenResourceError):
                await send_until_it_fails(stream)


@in_trio
async def test_an_accept_whose_listener_is_closed(trio_port: MakePort) -> None:
    async with trio_port() as port:
        (listener,) = await open_tcp_listeners(0, host="127.0.0.1", on=port)

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        async with trio.open_nursery() as nursery:
            for _ in range(3):  # any number of tasks may
                nursery.start_soon(accept)
            await wait_all_tasks_blocked()
            await listener.aclose()
        await listener.aclose()
        with assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await listener.accept()


@in_trio
async def test_a_cancelled_accept_takes_no_connection(trio_port: MakePort, net: Net) -> None:
    async with trio_port() as port:
        listening = net.listener()
        async with SocketListener(listening, on=port) as listener:
            with trio.move_on_after(0.01) as scope:
                await listener.accept()
            assert scope.cancelled_caught
            client = net.client(listening)
            async with await listener.accept() as stream:
                client.sendall(b"welcome")
                assert await stream.receive_some() == b"welcome"


@in_trio
async def test_what_is_no_stream_socket(trio_port: MakePort, net: Net) -> None:
    async with trio_port() as port:
        with pytest.raises(ValueError, match="SOCK_STREAM"):
            SocketStream(net.datagram(), on=port)
        with pytest.raises(TypeError, match="socket module"):
            SocketStream("socket", on=port)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="listening"):
            SocketListener(net.socket(), on=port)
        ours, _ = net.pair()
        async with SocketStream(ours, on=port) as stream:
            with pytest.raises(TypeError):
                await stream.send_all("text")  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                stream.setsockopt(1, 2, None)  # type: ignore[call-overload]
            with pytest.raises(TypeError):
                stream.setsockopt(1, 2, 3, 4)  # type: ignore[call-overload]


@in_trio
async def test_large_and_small_receives(trio_port: MakePort, net: Net) -> None:
    async with trio_port() as port:
        ours, peer = net.pair("unix")
        async with SocketStream(ours, on=port) as stream:
            peer.sendall(b"0123456789")
            assert await stream.receive_some(1) == b"0"
            assert await stream.receive_some(3) == b"123"
            assert await stream.receive_some(1 << 20) == b"456789"
            peer.close()
            assert await stream.receive_some(1 << 20) == b""
            assert await stream.receive_some() == b""


@in_trio
async def test_no_connection(trio_port: MakePort, net: Net) -> None:
    async with trio_port() as port:
        with pytest.raises(OSError, match="connect"):
            await open_tcp_stream(*net.refused_address(), on=port)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 and its key, made for this run."""
    import subprocess

    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=portio", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(path), "-out", f"{path}.crt"),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.mark.parametrize("size", [1, pytest.param(50 << 20, marks=pytest.mark.large)])
@in_trio
async def test_tls(trio_port: MakePort, certificate: Path, size: int) -> None:
    """trio.SSLStream over our stream, and a peer that is all trio's; both ways at once."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate)
    client = ssl.create_default_context(cafile=certificate)
    data = pattern(size)

    async def exchange(stream: trio.SSLStream[Any]) -> None:
        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            while len(received) < size:
                received += await stream.receive_some()
        assert received == data

    async with trio_port() as port:
        (listener,) = await open_tcp_listeners(0, host="127.0.0.1", on=port)
        async with listener:
            theirs = await trio.open_tcp_stream(*listener.socket.getsockname())
            ours = await listener.accept()
            async with ours, theirs, trio.open_nursery() as nursery:
                nursery.start_soon(
                    exchange, trio.SSLStream(theirs, client, server_hostname="127.0.0.1")
                )
                await exchange(trio.SSLStream(ours, server, server_side=True))


@in_trio
async def test_a_closed_port(backend: str, net: Net) -> None:
    """Its streams are closed; closing them then closes the sockets."""
    ours, peer = net.pair()
    port = TrioPort(backend=backend)
    stream = SocketStream(ours, on=port)

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        port.close()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")
    await stream.aclose()
    assert peer.recv(1) == b""
    assert port.closed
    with pytest.raises(portio.PortClosedError):
        await port.run(portio.Timer(0))
