"""How streams and listeners end: closed, by whatever hand, or never taken."""

from __future__ import annotations

import errno
import gc
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import portio
from portio.trio import (
    SocketListener,
    SocketStream,
    TrioPort,
    open_pipe,
    open_tcp_listeners,
    open_tcp_stream,
)
from support.handles import is_open
from support.marks import needs_chosen_numbers
from support.net import Net
from support.system import WINDOWS
from support.trio_runs import clog, in_trio

MakePort = Callable[[], AbstractAsyncContextManager[TrioPort]]


async def expect_all_closed(stream: SocketStream, listener: SocketListener) -> None:
    """Nothing can be done with them any more."""
    for use in (
        lambda: stream.send_all(b"x"),
        stream.receive_some,
        stream.send_eof,
        stream.wait_send_all_might_not_block,
        listener.accept,
    ):
        with assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await use()


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


@in_trio
async def test_a_socket_that_is_closed_by_its_own_hand(trio_port: MakePort, net: Net) -> None:
    """As with trio's, who waits is told, and nothing can be done with the stream any more."""
    async with trio_port() as port:
        given, peer = net.pair()
        given.settimeout(7)
        stream = SocketStream(given, on=port)
        listener = SocketListener(net.listener(), on=port)
        assert given.fileno() == -1  # that object has nothing to close any more
        assert stream.socket.gettimeout() == 7
        with stream.socket.dup() as duplicate:
            assert duplicate.getsockname() == stream.socket.getsockname()
        await clog(stream.socket)

        async def expect_closed(wait: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_closed, stream.receive_some)
            nursery.start_soon(expect_closed, stream.wait_send_all_might_not_block)
            nursery.start_soon(expect_closed, listener.accept)
            await wait_all_tasks_blocked()
            given.close()
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 3
            stream.socket.close()
            listener.socket.close()
        assert set(iter(lambda: peer.recv(1 << 20)[:1], b"")) == {b"\xff"}
        await expect_all_closed(stream, listener)
        stream.socket.close()
        await stream.aclose()
        await listener.aclose()


@in_trio
async def test_a_socket_that_refuses_is_not_taken(trio_port: MakePort, net: Net) -> None:
    """It stays with the caller, who can use and close it."""
    async with trio_port() as port, trio_port() as other:
        ours, peer = net.pair()
        key = other.associate(ours)
        with pytest.raises(OSError, match="belongs"):
            SocketStream(ours, on=port)
        gc.collect()
        peer.sendall(b"still")
        assert await other.run(portio.Recv(key, bytearray(8))) == 5
        key.close()


@needs_chosen_numbers
@in_trio
async def test_a_number_that_is_another_file_now(trio_port: MakePort, net: Net) -> None:
    """Closed where the port cannot see it, a stream does nothing to the number's next owner."""
    async with trio_port() as port:
        stream = SocketStream(net.pair()[0], on=port)
        listener = SocketListener(net.listener(), on=port)
        reader, writer = os.pipe()
        numbers = [stream.socket.detach(), listener.socket.detach()]
        for number in numbers:
            os.dup2(reader, number)
        try:
            await expect_all_closed(stream, listener)
            async with trio.open_nursery() as nursery:
                for number in numbers:
                    nursery.start_soon(trio.lowlevel.wait_readable, number)
                await wait_all_tasks_blocked()
                await stream.aclose()
                await listener.aclose()
                await wait_all_tasks_blocked()
                os.write(writer, b"x")
        finally:
            for descriptor in (reader, writer, *numbers):
                os.close(descriptor)


@in_trio
async def test_closing_tells_trio_of_what_it_can_wait_for(
    trio_port: MakePort, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sockets everywhere; of pipes not on Windows, where trio would refuse them."""
    told: list[int] = []
    monkeypatch.setattr(trio.lowlevel, "notify_closing", told.append)
    async with trio_port() as port:
        stream = SocketStream(net.pair()[0], on=port)
        sender, receiver = open_pipe(on=port)
        numbers = [stream.socket.fileno(), sender.fileno(), receiver.fileno()]
        for closing in (stream, sender, receiver):
            closing.close()
        assert told == (numbers[:1] if WINDOWS else numbers)
        assert not any(is_open(number) for number in numbers)


@in_trio
async def test_a_close_that_fails_closes(
    trio_port: MakePort, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    async with trio_port() as port:
        ours, peer = net.pair()
        stream = SocketStream(ours, on=port)
        with monkeypatch.context() as patch:
            patch.setattr(trio.lowlevel, "notify_closing", refuse)
            with pytest.raises(OSError, match="Cannot allocate"):
                stream.close()
        assert peer.recv(1) == b""
        assert stream.socket.fileno() == -1


@in_trio
async def test_an_accepted_stream_is_closed_through_its_socket(
    trio_port: MakePort, net: Net
) -> None:
    """Its socket is made for it as it is accepted."""
    async with trio_port() as port:
        (listener,) = await open_tcp_listeners(0, host="127.0.0.1", on=port)
        client = net.client(listener.socket)
        async with listener, await listener.accept() as stream, trio.open_nursery() as nursery:
            assert type(stream.socket) is type(listener.socket)
            assert stream.socket.family == client.family
            assert not stream.socket.get_inheritable()
            assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.receive_some()

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            stream.socket.close()
        assert client.recv(1) == b""


@in_trio
async def test_an_accepted_socket_that_cannot_be_prepared_is_closed(
    trio_port: MakePort, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("no option")

    async with trio_port() as port:
        (listener,) = await open_tcp_listeners(0, host="127.0.0.1", on=port)
        client = net.client(listener.socket)
        monkeypatch.setattr(SocketStream, "setsockopt", refuse)
        async with listener:
            with pytest.raises(ValueError, match="no option"):
                await listener.accept()
        assert client.recv(1) == b""


@in_trio
async def test_sockets_that_cannot_be_taken_over_are_closed(
    trio_port: MakePort, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No collector has to find them (a ResourceWarning is an error here)."""
    async with trio_port() as port:
        listening = net.listener()
        (listener,) = await open_tcp_listeners(0, host="127.0.0.1", on=port)
        associate = port.associate
        allowed = 0
        refused: list[socket.socket] = []

        def refuse(handle: Any, data: object = None) -> portio.CompletionKey:
            nonlocal allowed
            if allowed:
                allowed -= 1
                return associate(handle, data)
            refused.append(handle)
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(port, "associate", refuse)
        with pytest.raises(OSError, match="Too many"):
            await open_tcp_stream(*listening.getsockname(), on=port)
        client = net.client(listener.socket)
        with pytest.raises(OSError, match="Too many"):
            await listener.accept()
        assert client.recv(1) == b""
        two = [
            trio.SocketListener(trio.socket.from_stdlib_socket(sock))
            for sock in (net.listener(), net.listener())
        ]

        async def listen(*_: object, **__: object) -> Any:
            await trio.lowlevel.checkpoint()
            return two

        monkeypatch.setattr(trio, "open_tcp_listeners", listen)
        allowed = 1
        with pytest.raises(OSError, match="Too many"):
            await open_tcp_listeners(0, on=port)
        assert [sock.fileno() for sock in refused] == [-1, -1, -1]
        assert [theirs.socket.fileno() for theirs in two] == [-1, -1]
        await listener.aclose()
