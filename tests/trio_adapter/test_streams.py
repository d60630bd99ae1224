"""Sockets and pipes are streams as trio's own: trio's checks say so."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
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
from portio.completion import Outcome
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
from portio.trio.sockets import FAILED_EARLY
from support.handles import fill_pipe, is_open
from support.marks import needs_chosen_numbers
from support.net import Net, fill, pattern, reset
from support.system import LOCAL, WINDOWS, WINE
from support.trio_runs import in_trio

MakePort = Callable[[], AbstractAsyncContextManager[TrioPort]]


async def clog(stream: SocketStream) -> None:
    """Send until nothing more goes, also when what was sent has moved on to the peer."""
    while True:
        fill(stream.socket)
        with trio.move_on_after(0.2) as scope:
            await trio.lowlevel.wait_writable(stream.socket)
        if scope.cancelled_caught:
            return


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
                await clog(stream)
            return one, other

        await check_half_closeable_stream(make, make_clogged)


@in_trio
async def test_trios_checks_of_pipes(trio_port: MakePort) -> None:
    async with trio_port() as port:

        async def make() -> tuple[PipeSendStream, PipeReceiveStream]:
            return open_pipe(on=port)

        async def make_clogged() -> tuple[PipeSendStream, PipeReceiveStream]:
            sender, receiver = open_pipe(on=port)
            fill_pipe(sender)
            return sender, receiver

        # On Windows nobody can tell whether a pipe has room: as with trio's own.
        await check_one_way_stream(make, None if WINDOWS else make_clogged)


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

            async def receive() -> None:
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await stream.receive_some()
                assert isinstance(caught.value.__cause__, ConnectionResetError)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await wait_all_tasks_blocked()  # Wine tells of a reset only those who wait
                reset(peer)
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
    async with trio_port() as port, SocketListener(net.listener(), on=port) as listener:
        with trio.move_on_after(0.01) as scope:
            await listener.accept()
        assert scope.cancelled_caught
        client = net.client(listener.socket)
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
        ours, peer = net.pair(LOCAL)
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
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server and its clients: with a certificate for 127.0.0.1, made for this run."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if shutil.which("openssl") is None and WINDOWS:
        # Where nobody makes certificates, with one of the kinds of TLS that need none.
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        for context in (server, client):
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
        return server, client
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
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=path)


LARGE = (4 if WINE else 50) << 20


@pytest.mark.parametrize("size", [1, pytest.param(LARGE, marks=pytest.mark.large)])
@in_trio
async def test_tls(
    trio_port: MakePort, tls: tuple[ssl.SSLContext, ssl.SSLContext], size: int
) -> None:
    """trio.SSLStream over our stream, and a peer that is all trio's; both ways at once."""
    server, client = tls
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
            # The nursery is the inner one: no end is closed before both are done.
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


# What the system says: on Windows numbers of Winsock's, and the kernel's
# ERROR_NETNAME_DELETED, ERROR_SEM_TIMEOUT and ERROR_CONNECTION_ABORTED.
EARLY = [*(n for n in FAILED_EARLY if n > 10000), 64, 121, 1236] if WINDOWS else [*FAILED_EARLY]
TOO_MANY = 10024 if WINDOWS else errno.EMFILE


def refusing(number: int) -> portio.Completion[Any]:
    """The completion of an accept that has failed."""
    done: portio.Completion[Any] = portio.Completion()
    done.key = portio.CompletionKey()
    done.operation = portio.Accept(done.key)
    done.nbytes = 0
    done._outcome = Outcome(number, 0, None)
    return done


@in_trio
async def test_a_connection_that_failed_early_ends_no_server(
    trio_port: MakePort, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trio_port() as port:
        listener = SocketListener(net.listener(), on=port)
        complete = port.complete
        errors = [*EARLY, TOO_MANY]

        async def fail_first(operation: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(operation, portio.Accept) and errors:
                await trio.lowlevel.checkpoint()
                return refusing(errors.pop(0))
            return await complete(operation, *arguments, **options)

        monkeypatch.setattr(port, "complete", fail_first)
        with pytest.raises(OSError, match="Accept") as caught:
            await listener.accept()
        assert caught.value.errno == errno.EMFILE
        assert not errors
        errors.append(EARLY[0])
        client = net.client(listener.socket)
        async with listener, await listener.accept() as stream:
            client.sendall(b"welcome")
            assert await stream.receive_some() == b"welcome"


def test_what_accepting_passes_over_is_what_trio_does() -> None:
    highlevel = pytest.importorskip("trio._highlevel_socket")
    assert highlevel._ignorable_accept_errnos == FAILED_EARLY


@in_trio
async def test_a_socket_that_is_closed_by_its_own_hand(trio_port: MakePort, net: Net) -> None:
    """As with trio's, who waits is told, and nothing can be done with the stream any more."""
    async with trio_port() as port:
        given, peer = net.pair()
        stream = SocketStream(given, on=port)
        listener = SocketListener(net.listener(), on=port)
        assert given.fileno() == -1  # that object has nothing to close any more
        await clog(stream)

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
        for use in (
            lambda: stream.send_all(b"x"),
            stream.receive_some,
            stream.send_eof,
            stream.wait_send_all_might_not_block,
            listener.accept,
        ):
            with assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
                await use()
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
            for use in (
                lambda: stream.send_all(b"x"),
                stream.receive_some,
                stream.send_eof,
                stream.wait_send_all_might_not_block,
                listener.accept,
            ):
                with assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
                    await use()
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
