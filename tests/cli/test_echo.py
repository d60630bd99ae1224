"""``python -m portio echo``"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
import socket
import struct
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest

from cli.command import STOP, Command, Result, receive, run, said, start
from portio.cli import echo as echo_module
from support.marks import needs_resource_limits, wine_keeps_ctrl_break
from support.net import LINGER
from support.system import WINE
from support.watch import LIMIT

CONNECTIONS = 200 if WINE else 500  # each of its system calls is a message to a server
WORKERS = [1, 4]
STOPS = [
    signal.SIGINT,
    pytest.param(signal.SIGBREAK, marks=wine_keeps_ctrl_break)
    if sys.platform == "win32"
    else signal.SIGTERM,
]


@contextlib.contextmanager
def echo(
    backend: str, workers: int = 1, *options: str
) -> Iterator[tuple[Command, tuple[str, int]]]:
    """A server, which must end well when it is asked to."""
    arguments = ["--port", "0", "--workers", str(workers), "--backend", backend, *options]
    with start("echo", *arguments) as command:
        yield command, command.address()
        command.signal(STOP)
        assert command.finish() == Result(0, "", "")


def converse(address: tuple[str, int], message: bytes = b"are you there?") -> None:
    """One message there and back."""
    with socket.create_connection(address, timeout=LIMIT) as client:
        client.sendall(message)
        assert receive(client, len(message)) == message


# Load


async def talk(address: tuple[str, int], seed: int, rounds: int) -> int:
    """One client of many: messages of any length, each of which must come back."""
    chance = random.Random(seed)
    reader, writer = await asyncio.open_connection(*address)
    moved = 0
    for _ in range(rounds):
        message = chance.randbytes(chance.choice([1, 64, 64, 1000, 16_384, 40_000]))
        writer.write(message)
        assert await reader.readexactly(len(message)) == message
        moved += len(message)
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    return moved


@pytest.mark.parametrize("workers", WORKERS)
def test_many_connections_under_load(backend: str, workers: int) -> None:
    async def load(address: tuple[str, int]) -> None:
        tasks = [talk(address, seed, rounds=12) for seed in range(CONNECTIONS)]
        async with asyncio.timeout(100):
            await asyncio.gather(*tasks)

    with echo(backend, workers) as (_, address):
        asyncio.run(load(address))
        converse(address)


@pytest.mark.parametrize("workers", WORKERS)
def test_all_connections_are_open_at_once(backend: str, workers: int) -> None:
    """Each client speaks while all the others are connected, and none is forgotten."""
    with echo(backend, workers) as (_, address), contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(address, timeout=LIMIT))
            for _ in range(CONNECTIONS)
        ]
        for turn in range(3):
            for number, client in enumerate(clients):
                client.sendall(struct.pack("!HH", turn, number))
            for number, client in enumerate(clients):
                assert receive(client, 4) == struct.pack("!HH", turn, number)


@pytest.mark.parametrize("workers", WORKERS)
def test_long_stream_keeps_its_order(backend: str, workers: int) -> None:
    """The client sends all the time, and reads only as the answers come."""
    data = random.Random(5).randbytes(8 << 20)
    with echo(backend, workers) as (_, address):
        with socket.create_connection(address, timeout=LIMIT) as client:

            def send() -> None:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            received = receive(client, len(data) + 1)
            sender.join()
        assert received == data


# Clients that behave badly, and a system at its limits


@pytest.mark.parametrize("workers", WORKERS)
def test_clients_that_reset(backend: str, workers: int) -> None:
    with echo(backend, workers) as (_, address):
        for number in range(100):
            client = socket.create_connection(address, timeout=LIMIT)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(LINGER, 1, 0))
            if number % 2:
                client.sendall(bytes(50_000))
            client.close()
        converse(address)


@needs_resource_limits
def test_out_of_descriptors(backend: str) -> None:
    """Connections beyond the limit wait until others have closed."""
    with start(
        *("echo", "--port", "0", "--backend", backend),
        before="resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))",
    ) as command:
        address = command.address()
        clients = [socket.create_connection(address, timeout=LIMIT) for _ in range(80)]
        try:
            for client in clients:
                client.sendall(b"first come")
            assert command.error_line() == "portio echo: accept: Too many open files; retrying"
            for client in clients:  # the first are served now, the others as these leave
                assert receive(client, 10) == b"first come"
                client.close()
        finally:
            for client in clients:
                client.close()
        converse(address)
        command.signal(STOP)
        assert command.finish() == Result(0, "", "")


@needs_resource_limits
def test_waits_between_accepts_that_fail(backend: str) -> None:
    """Out of descriptors the server sleeps; it does not spin."""
    script = """
        import sys
        from portio.cli import echo, main

        failed = 0
        follow_accept = echo._Server._follow_accept

        def counting(self, accept, done, batch):
            global failed
            failed += done.error is not None
            follow_accept(self, accept, done, batch)

        echo._Server._follow_accept = counting
        status = main(sys.argv[1:])
        print(failed)
        sys.exit(status)
    """
    began = time.monotonic()
    with start(
        *("echo", "--port", "0", "--backend", backend),
        program=[sys.executable, "-c", textwrap.dedent(script)],
        before="resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))",
    ) as command:
        address = command.address()
        clients = [socket.create_connection(address, timeout=LIMIT) for _ in range(40)]
        command.error_line()
        with contextlib.suppress(TimeoutError):
            clients[-1].settimeout(1)  # it is not served for as long as the others stay
            clients[-1].recv(1)
        command.signal(STOP)
        result = command.finish()
        for client in clients:
            client.close()
    assert result.status == 0
    # Ten times until the pause is longest, then once in each pause.
    most = echo_module.ACCEPTS * (10 + (time.monotonic() - began) / echo_module.LONGEST_PAUSE)
    assert 0 < int(result.output) <= most


# Start and end


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("number", STOPS)
def test_stops_with_connections_open(backend: str, workers: int, number: int) -> None:
    with start("echo", "--port", "0", "--workers", workers, "--backend", backend) as command:
        address = command.address()
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(address, timeout=LIMIT))
                for _ in range(20)
            ]
            for client in clients:
                client.sendall(b"here")
                assert receive(client, 4) == b"here"
            command.signal(number)
            assert command.finish() == Result(0, "", "")
            for client in clients:
                assert client.recv(1) == b""


def test_stops_at_once_before_the_first_connection(backend: str) -> None:
    with echo(backend):
        pass


def test_address_in_use(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        line = run("echo", "--port", number, "--backend", backend).error_line()
    assert line == f"portio echo: 127.0.0.1:{number}: {said('EADDRINUSE', 10048)}"


def test_address_of_another_machine() -> None:
    line = run("echo", "--host", "192.0.2.1", "--port", "0").error_line()
    assert line == f"portio echo: 192.0.2.1:0: {said('EADDRNOTAVAIL', 10049)}"


def test_no_name_of_a_host() -> None:
    line = run("echo", "--host", "x" * 64, "--port", "0").error_line()
    assert line == f"portio echo: {'x' * 64}: not the name of a host"


@needs_resource_limits
def test_more_workers_than_the_system_has_room_for(backend: str) -> None:
    result = run(
        *("echo", "--port", "0", "--workers", "100000", "--backend", backend),
        before="resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))",
    )
    assert result.status == 1
    # A thread that has just begun may find no memory either: then CPython has a word too,
    # sooner or later.
    line = re.compile(r"portio echo: worker \d+ of 100000: can't start new thread")
    assert any(map(line.fullmatch, result.errors.splitlines())), result.errors


def test_ipv6(backend: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6: {error}")
    with echo(backend, 1, "--host", "::1") as (_, (host, port)):
        assert host == "::1"
        converse((host, port))


def test_host_name(backend: str) -> None:
    with echo(backend, 1, "--host", "localhost") as (_, address):
        converse(address)


def test_backend_that_does_not_exist() -> None:
    line = run("echo", "--port", "0", "--backend", "carrier-pigeon").error_line()
    assert "carrier-pigeon" in line


@pytest.mark.parametrize(
    "options", [["--port", "65536"], ["--port", "http"], ["--workers", "0"], ["--workers", "-1"]]
)
def test_wrong_arguments(options: list[str]) -> None:
    result = run("echo", *options)
    assert result.status == 2
    assert "usage: " in result.errors
