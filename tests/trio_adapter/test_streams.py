"""Sockets and pipes are streams as trio's own: trio's checks say so."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import (
    check_half_closeable_stream,
    check_one_way_stream,
    open_stream_to_socket_listener,
    wait_all_tasks_blocked,
)

import portio
import portio.backends
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
from portio.trio.wakes import DescriptorWake, descriptor
from support.handles import fill_pipe
from support.net import Net, fill, pattern, reset
from support.system import LOCAL, WINDOWS, WINE
from support.trio_runs import clog, in_trio
from support.watch import LIMIT

MakePort = Callable[[], AbstractAsyncContextManager[TrioPort]]


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


@pytest.mark.parametrize("few", [descriptor.FEW, -1], ids=["few packets", "many"])
@pytest.mark.parametrize("family", ["tcp", "unix"])
@in_trio
async def test_a_send_waits_for_nothing_or_for_its_packet(
    trio_port: MakePort, backend: str, family: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system takes at once gives no packet, and what has to wait is waited for.

    Unless there is much to do, and a ring, which takes many at once.
    """
    monkeypatch.setattr(descriptor, "FEW", few)
    async with trio_port() as port:
        one, other = await tcp_pair(port) if family == "tcp" else unix_pair(port)
        async with one, other:
            packets: list[object] = []
            deliver = port.deliver

            def count(these: list[portio.Completion[Any]]) -> None:
                packets.extend(packet.operation for packet in these)
                deliver(these)

            monkeypatch.setattr(port, "deliver", count)
            await port.run(portio.Timer(0))  # packets have come
            for _ in range(10):
                await one.send_all(b"answer")
            assert port._wake.crowded == (few < 0 and isinstance(port._wake, DescriptorWake))
            if backend == "iocp":
                at_once = "skip_success" in portio.backends.available()[backend].features
            else:
                at_once = backend == "epoll" or not port._wake.crowded
            assert packets.count(one._send) == (0 if at_once else 10)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.send_all, pattern(8 << 20))
                await wait_all_tasks_blocked()
                assert one._send.pending
                received = bytearray()
                while len(received) < 60 + (8 << 20):
                    received += await other.receive_some()
            assert packets.count(one._send) == (1 if at_once else 11)
            assert received == b"answer" * 10 + pattern(8 << 20)


@pytest.mark.parametrize("family", ["tcp", "unix"])
@in_trio
async def test_trios_checks_of_sockets(trio_port: MakePort, family: str) -> None:
    async with trio_port() as port:

        async def make() -> tuple[SocketStream, SocketStream]:
            return await tcp_pair(port) if family == "tcp" else unix_pair(port)

        async def make_clogged() -> tuple[SocketStream, SocketStream]:
            one, other = await make()
            async with trio.open_nursery() as nursery:
                for stream in (one, other):
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
                    if WINDOWS:  # what was sent moves on by and by
                        nursery.start_soon(clog, stream.socket)
                    else:
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
            fill_pipe(sender)
            return sender, receiver

        # On Windows nobody can tell whether a pipe has room: as with trio's own.
        await check_one_way_stream(make, None if WINDOWS else make_clogged)


@in_trio
async def test_a_receive_that_is_full_at_once(trio_port: MakePort) -> None:
    async with trio_port() as port:
        sender, receiver = open_pipe(on=port)
        async with sender, receiver:
            for size in (1, 6, 4096):
                await sender.send_all(pattern(3 * size))
                with trio.fail_after(LIMIT):
                    assert await receiver.receive_some(size) == pattern(3 * size)[:size]
                    rest = bytearray()
                    while len(rest) < 2 * size:
                        rest += await receiver.receive_some(size)
                assert rest == pattern(3 * size)[size:]


@pytest.mark.skipif(WINDOWS, reason="a descriptor of the C runtime is no handle there")
@in_trio
async def test_a_file_in_the_place_of_a_pipe(trio_port: MakePort, tmp_path: Path) -> None:
    """As standard input may be: always from the file's begin, for it has no position."""
    path = tmp_path / "file"
    path.write_bytes(b"123456")
    descriptor = os.open(path, os.O_RDONLY)
    async with trio_port() as port:
        with trio.fail_after(LIMIT):
            async with PipeReceiveStream(descriptor, on=port) as receiver:
                assert await receiver.receive_some(4) == b"1234"
                assert await receiver.receive_some(6) == b"123456"
                assert await receiver.receive_some(100) == b"123456"


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


class Resolver(trio.abc.HostnameResolver):
    """Knows one host, by these addresses."""

    def __init__(self, *addresses: Any) -> None:
        self.addresses = addresses

    async def getaddrinfo(self, *_: object) -> list[Any]:
        await trio.lowlevel.checkpoint()
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, address) for address in self.addresses]

    async def getnameinfo(self, *_: object) -> tuple[str, str]:
        raise NotImplementedError


@pytest.mark.parametrize("first", ["refuses", "does not answer"])
@in_trio
async def test_the_address_that_answers(trio_port: MakePort, net: Net, first: str) -> None:
    """Happy Eyeballs: the connection that is made first is taken, the others are let go."""
    async with trio_port() as port, SocketListener(net.listener(), on=port) as listener:
        answers = listener.socket.getsockname()
        silent = net.refused_address() if first == "refuses" else net.full_listener().getsockname()
        trio.socket.set_custom_hostname_resolver(Resolver(silent, answers))
        async with (
            await open_tcp_stream("host.example", 1, happy_eyeballs_delay=0.05, on=port) as ours,
            await listener.accept() as theirs,
        ):
            assert ours.socket.getpeername() == answers
            await ours.send_all(b"hello")
            assert await theirs.receive_some() == b"hello"


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
