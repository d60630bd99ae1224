"""Each example does on every backend what its first lines promise."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import signal
import socket
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from cli.command import Command, Result, receive, run, start
from support.watch import LIMIT

EXAMPLES = Path(__file__).parents[2] / "examples"


def program(name: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / f"{name}.py")]


@contextlib.contextmanager
def server(
    name: str, backend: str, *arguments: object
) -> Iterator[tuple[Command, tuple[str, int]]]:
    with start(*arguments, program=program(name), PORTIO_BACKEND=backend) as command:
        yield command, command.address()


def test_every_example_is_tested() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.stem}"' in text, path


# The first program


def test_first_program_is_short() -> None:
    assert len((EXAMPLES / "first_program.py").read_text().splitlines()) <= 25


def test_first_program(backend: str) -> None:
    data = random.Random(1).randbytes(100_000)
    with server("first_program", backend) as (command, address):
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(address, timeout=LIMIT))
                for _ in range(20)
            ]
            for client in clients:
                client.sendall(b"hello")
            for client in clients:
                assert receive(client, 5) == b"hello"
            clients[0].sendall(data)
            assert receive(clients[0], len(data)) == data
            clients[0].shutdown(socket.SHUT_WR)
            assert clients[0].recv(1) == b""
        command.signal(signal.SIGINT)
        result = command.finish()
    assert result.errors.splitlines()[-1] == "KeyboardInterrupt"


# The worker-thread server


def test_worker_thread_server(backend: str) -> None:
    with server("worker_thread_server", backend, "127.0.0.1", 0, 3) as (command, address):
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(address, timeout=LIMIT))
                for _ in range(50)
            ]
            streams = [stack.enter_context(client.makefile("rb")) for client in clients]
            for number, client in enumerate(clients):
                client.sendall(b"first line of %d\nhalf" % number)
            for number, stream in enumerate(streams):
                assert stream.readline() == b"1 first line of %d\n" % number
            for client in clients:
                client.sendall(b" line\nlast\n")
                client.shutdown(socket.SHUT_WR)
            for stream in streams:
                assert stream.read() == b"2 half line\n3 last\n"
        for _ in clients:
            assert re.fullmatch(r"\('127.0.0.1', \d+\): 3 lines, closed", command.error_line())
        command.signal(signal.SIGINT)
        assert command.finish() == Result(0, "", "")


def test_worker_thread_server_ends_with_clients_connected(backend: str) -> None:
    with (
        server("worker_thread_server", backend) as (command, address),
        socket.create_connection(address, timeout=LIMIT) as client,
        client.makefile("rb") as stream,
    ):
        client.sendall(b"hello\n")
        assert stream.readline() == b"1 hello\n"
        command.signal(signal.SIGINT)
        assert command.finish() == Result(0, "", "")
        assert stream.read() == b""


# The converter


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_001])
def test_ascii_to_utf16(backend: str, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "ascii", tmp_path / "utf16"
    text = "".join(random.Random(size).choices([chr(code) for code in range(128)], k=size))
    source.write_bytes(text.encode("ascii"))
    result = run(source, target, program=program("ascii_to_utf16"), PORTIO_BACKEND=backend)
    assert result == Result(0, f"{size} characters\n", "")
    assert target.read_bytes().decode("utf-16") == text


def test_ascii_to_utf16_refuses_what_is_not_ascii(backend: str, tmp_path: Path) -> None:
    source, target = tmp_path / "ascii", tmp_path / "utf16"
    source.write_bytes(b"x" * 200_000 + "ä".encode() + b"x" * 1000)
    result = run(source, target, program=program("ascii_to_utf16"), PORTIO_BACKEND=backend)
    assert result == Result(1, "", f"{source}: byte 200000 is not ASCII\n")


# The smaller ones


def test_receive_with_timeout(backend: str) -> None:
    result = run(program=program("receive_with_timeout"), PORTIO_BACKEND=backend)
    assert result.errors == ""
    assert result.output == (
        "first receive: b'in time'\nsecond receive: None\nthird receive: b'late'\n"
    )


def test_thread_pool(backend: str, tmp_path: Path) -> None:
    wanted = set()
    for number in range(100):
        path = tmp_path / str(number)
        path.write_text(f"file {number}")
        wanted.add(f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path}")
    result = run(*tmp_path.iterdir(), program=program("thread_pool"), PORTIO_BACKEND=backend)
    assert result.errors == ""
    assert sorted(result.output.splitlines()) == sorted(wanted)


def test_datagram_clock(backend: str) -> None:
    with (
        server("datagram_clock", backend) as (command, address),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(LIMIT)
        client.connect(address)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.sendto(b"what time is it?", address)
        client.send(b"x" * 1000)  # more than the clock has room for
        for _ in range(20):
            client.send(b"what time is it?")
            datetime.fromisoformat(client.recv(100).decode())
        command.signal(signal.SIGINT)
        result = command.finish()
    assert result.status == 0
    assert "Traceback" not in result.errors
