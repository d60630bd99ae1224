"""The trio programs, with real clients: curl, and ab of Apache.

Where there is no curl, which is under Wine, Python's own client asks.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import http.client
import importlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.command import Result, receive, run, said, start
from examples.test_examples import EXAMPLES, program
from support import backends
from support.children import environment
from support.system import WINDOWS
from support.watch import LIMIT

NO_CURL = WINDOWS and shutil.which("curl") is None

trio = pytest.importorskip("trio")


def tool(name: str) -> str:
    """A program of the system's; where the checks are complete it has to be there."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed"
        if "PORTIO_TEST_TOOLS" in os.environ and not WINDOWS:
            pytest.fail(f"{reason} (PORTIO_TEST_TOOLS asks for it)", pytrace=False)
        pytest.skip(reason)
    return path


# The echo server


def test_trio_echo(backend: str) -> None:
    data = random.Random(2).randbytes(1_000_000)
    command_line = ["--port", "0", "--backend", backend]
    with (
        start(*command_line, program=program("trio_echo")) as command,
        contextlib.ExitStack() as stack,
    ):
        address = command.address()
        clients = [
            stack.enter_context(socket.create_connection(address, timeout=LIMIT)) for _ in range(50)
        ]
        for number, client in enumerate(clients):
            client.sendall(b"hello %d" % number)
        for number, client in enumerate(clients):
            expected = b"hello %d" % number
            assert receive(client, len(expected)) == expected
        for start_at in range(0, len(data), 50_000):
            clients[0].sendall(data[start_at : start_at + 50_000])
            assert receive(clients[0], 50_000) == data[start_at : start_at + 50_000]
        clients[0].shutdown(socket.SHUT_WR)
        assert clients[0].recv(1) == b""
        command.signal(signal.SIGINT)
        assert command.finish() == Result(0, "", "")
        assert clients[1].recv(1) == b""


# The file server


Served = tuple[str, Path]


@pytest.fixture(scope="module", params=backends.selected())
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server, by its URL, and the directory that it serves: one for all requests here."""
    pytest.importorskip("h11")
    backends.require(request.param)
    root = make_site(tmp_path_factory.mktemp("served"))
    arguments = ["--port", "0", "--backend", request.param, root]
    with start(*arguments, program=program("trio_http")) as command:
        host, port = command.address()
        yield f"http://{host}:{port}", root
        command.signal(signal.SIGINT)
        assert command.finish() == Result(0, "", "")


@pytest.fixture
def url(served: Served) -> str:
    """What the server is asked by."""
    return served[0]


@pytest.fixture
def site(served: Served) -> Path:
    """What it serves."""
    return served[1]


def make_site(folder: Path) -> Path:
    """A directory of files, beside a secret."""
    root = folder / "site"
    (root / "deep" / "er").mkdir(parents=True)
    dice = random.Random(3)
    (root / "index.html").write_bytes(b"<h1>hello</h1>\n")
    (root / "large.bin").write_bytes(dice.randbytes(3_000_001))
    (root / "empty").write_bytes(b"")
    (root / "deep" / "er" / "with space.txt").write_bytes(b"found\n")
    for number in range(200):
        (root / f"{number}.dat").write_bytes(dice.randbytes(dice.randrange(1, 60_000)))
    (folder / "secret").write_bytes(b"secret\n")
    with contextlib.suppress(OSError) if WINDOWS else contextlib.nullcontext():
        (root / "link").symlink_to(folder / "secret")
    return root


Answer = tuple[int, dict[str, str], bytes]


def fetch(url: str, *headers: str, method: str = "GET", body: str | None = None) -> Answer:
    """The status, the headers and the body of the answer to a request."""
    if NO_CURL:
        return fetch_by_python(url, *headers, method=method, body=body)
    options = [option for header in headers for option in ("-H", header)]
    if method == "HEAD":
        options.append("--head")
    if body is not None:
        options += ["--data", body]
    done = subprocess.run(
        [tool("curl"), "-sS", "-i", "--path-as-is", "--max-time", str(LIMIT), *options, url],
        capture_output=True,
        check=True,
        env=environment(no_proxy="*"),
    )
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    found = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), found, content


def fetch_by_python(url: str, *headers: str, method: str, body: str | None) -> Answer:
    server, slash, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(server, timeout=LIMIT)
    with contextlib.closing(connection):
        pairs = [header.split(": ", 1) for header in headers]
        connection.request(method, slash + path, body=body, headers=dict(pairs))
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, answer.read()


def test_trio_http_serves_files(url: str, site: Path) -> None:
    status, headers, body = fetch(f"{url}/large.bin")
    assert status == 200
    assert body == (site / "large.bin").read_bytes()
    assert headers["content-length"] == "3000001"
    assert headers["accept-ranges"] == "bytes"
    assert fetch(f"{url}/")[2] == b"<h1>hello</h1>\n"
    assert fetch(f"{url}/")[1]["content-type"] == "text/html"
    assert fetch(f"{url}/deep/er/with%20space.txt?a=b")[2] == b"found\n"
    assert fetch(f"{url}/empty")[::2] == (200, b"")


def test_trio_http_keeps_a_connection(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=LIMIT)
    with contextlib.closing(connection):
        connection.connect()
        opened = connection.sock
        for path, wanted in (("/", b"<h1>hello</h1>\n"), ("/none", b"404 Not Found\n")) * 2:
            connection.request("GET", path)
            assert connection.getresponse().read() == wanted
            assert connection.sock is opened


def test_trio_http_head(url: str, site: Path) -> None:
    status, headers, body = fetch(f"{url}/large.bin", method="HEAD")
    assert (status, body) == (200, b"")
    assert headers["content-length"] == "3000001"
    assert fetch(f"{url}/none", method="HEAD")[::2] == (404, b"")


RANGES = {
    "0-99": (0, 100),
    "1000000-": (1_000_000, 3_000_001),
    "-10": (2_999_991, 3_000_001),
    "2999999-9999999": (2_999_999, 3_000_001),
    "-9999999": (0, 3_000_001),
}


def test_trio_http_ranges(url: str, site: Path) -> None:
    for asked, (first, end) in RANGES.items():
        status, headers, body = fetch(f"{url}/large.bin", f"Range: bytes={asked}")
        assert status == 206
        assert body == (site / "large.bin").read_bytes()[first:end]
        assert headers["content-range"] == f"bytes {first}-{end - 1}/3000001"


def test_trio_http_ranges_that_are_none(url: str) -> None:
    status, headers, _ = fetch(f"{url}/large.bin", "Range: bytes=3000001-")
    assert status == 416
    assert headers["content-range"] == "bytes */3000001"
    assert fetch(f"{url}/index.html", "Range: bytes=5-3")[0] == 200
    assert fetch(f"{url}/index.html", "Range: lines=1-3")[0] == 200
    assert fetch(f"{url}/index.html", "If-Range: other", "Range: bytes=0-1")[0] == 200


def test_trio_http_conditions(url: str) -> None:
    _, headers, _ = fetch(f"{url}/index.html")
    tag, date = headers["etag"], headers["last-modified"]
    status, headers, body = fetch(f"{url}/index.html", f'If-None-Match: "other", {tag}')
    assert (status, body) == (304, b"")
    assert headers["etag"] == tag
    assert fetch(f"{url}/index.html", 'If-None-Match: "other"')[0] == 200
    assert fetch(f"{url}/index.html", f"If-Modified-Since: {date}")[0] == 304
    assert fetch(f"{url}/index.html", "If-Modified-Since: nonsense")[0] == 200
    assert fetch(f"{url}/index.html", f"If-Range: {tag}", "Range: bytes=0-1")[0] == 206


REFUSED: dict[str, int] = {
    "/none": 404,
    "/index.html/x": 404,
    "/deep": 404,  # a directory without an index
    "/../secret": 403,
    "/deep/../../secret": 403,
    "/%2e%2e/secret": 403,
    "/..%2fsecret": 403,
    "/link": 403,
    "/a%00b": 400,
    "//etc/passwd": 404,
}
if WINDOWS:
    REFUSED |= {"/..%5csecret": 403, "/C:/windows/win.ini": 403, "/nul": 403}


def test_trio_http_refuses(url: str, site: Path) -> None:
    statuses = dict(REFUSED)
    if not (site / "link").exists():  # Windows makes links for the privileged
        statuses["/link"] = 404
    for path, status in statuses.items():
        found, _, body = fetch(url + path)
        assert found == status, path
        assert b"secret" not in body
        assert b"root" not in body


def test_trio_http_other_methods(url: str) -> None:
    status, headers, _ = fetch(f"{url}/index.html", method="POST", body="x" * 100_000)
    assert status == 405
    assert headers["allow"] == "GET, HEAD"


def test_trio_http_nonsense(url: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as client:
        client.sendall(b"\0\1\2 nonsense\r\n\r\n")
        assert client.recv(100) == b""
    assert fetch(f"{url}/")[0] == 200


def exchange(url: str, *lines: str) -> bytes:
    """What comes back for a request, up to the end of the connection."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as client:
        request = "\r\n".join([*lines, "Host: x", "Connection: close", "", ""])
        client.sendall(request.encode())
        return receive(client, 1 << 20)


UNFORESEEN = [
    f"Range: bytes=0-{'9' * 5000}",
    f"Range: bytes={'9' * 5000}-",
    f"Range: bytes=-{'9' * 5000}",
    "Range: bytes=\u0661-\u0662",
    "If-Modified-Since: Mon, 01 Jan 0001 00:00:00 -0000",
    "If-Modified-Since: Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
    f"If-Modified-Since: Mon, 01 Jan {'9' * 5000} 00:00:00 GMT",
]


def test_trio_http_headers_that_nobody_sends(url: str) -> None:
    for header in UNFORESEEN:
        answer = exchange(url, "GET /index.html HTTP/1.1", header)
        assert answer.startswith(b"HTTP/1.1 200 "), header
        assert answer.endswith(b"<h1>hello</h1>\n"), header


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_trio_http_does_not_wait_for_a_fifo(url: str, site: Path) -> None:
    os.mkfifo(site / "fifo")
    (site / "folder").mkdir()
    os.mkfifo(site / "folder" / "index.html")
    assert fetch(f"{url}/fifo")[0] == 403
    assert fetch(f"{url}/folder/")[0] == 403


def test_trio_http_goes_on_when_an_answer_fails(
    backend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The disk fails when the answer has begun: its connection ends, and no other does."""
    pytest.importorskip("h11")
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    site = make_site(tmp_path)
    server = importlib.import_module("trio_http")
    failures = [OSError(errno.EIO, "Input/output error"), RuntimeError("unforeseen")]
    send_file = server.send_file

    async def fail_first(*arguments: object) -> int:
        if failures:
            raise failures.pop(0)
        sent: int = await send_file(*arguments)
        return sent

    monkeypatch.setattr(server, "send_file", fail_first)
    monkeypatch.setattr("builtins.print", lambda text, **_: lines.append(text))
    lines: list[str] = []

    async def talk() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.main, str(site), "127.0.0.1", 0, backend)
            with trio.fail_after(LIMIT):
                while not lines:
                    await trio.sleep(0.001)
                url = "http://" + lines[0].removeprefix("listening on ")
                ask = functools.partial(exchange, url, "GET /index.html HTTP/1.1")
                for _ in range(2):
                    assert (await trio.to_thread.run_sync(ask)).endswith(b"\r\n\r\n")
                assert (await trio.to_thread.run_sync(ask)).endswith(b"<h1>hello</h1>\n")
            nursery.cancel_scope.cancel()

    trio.run(talk)
    assert [record.getMessage() for record in caplog.records] == ["a connection has failed"] * 2


def test_trio_http_200_connections(url: str, site: Path, tmp_path: Path) -> None:
    """200 different files at once, each body right."""
    target = tmp_path / "got"
    target.mkdir()
    if NO_CURL:
        fetch_200(url, target)
    else:
        fetch_200_by_curl(url, target, tmp_path / "config")
    for number in range(200):
        assert (target / f"{number}.dat").read_bytes() == (site / f"{number}.dat").read_bytes()


def fetch_200(url: str, target: Path) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=LIMIT))
            for _ in range(200)
        ]
        for number, client in enumerate(clients):
            request = f"GET /{number}.dat HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            client.sendall(request.encode())
        for number, client in enumerate(clients):
            _, _, body = receive(client, 1 << 20).partition(b"\r\n\r\n")
            (target / f"{number}.dat").write_bytes(body)


def fetch_200_by_curl(url: str, target: Path, config: Path) -> None:
    lines = []
    for number in range(200):
        lines += [f'url = "{url}/{number}.dat"', f'output = "{target.as_posix()}/{number}.dat"']
    config.write_text("\n".join(lines))
    subprocess.run(
        [
            *(tool("curl"), "-sS", "--fail", "--parallel", "--parallel-immediate"),
            *("--parallel-max", "200", "--max-time", "60", "--config", config),
        ],
        check=True,
        env=environment(no_proxy="*"),
    )


@pytest.mark.parametrize("more", [[], ["-k"]])
def test_trio_http_200_connections_of_ab(url: str, more: list[str]) -> None:
    done = subprocess.run(
        [tool("ab"), "-q", "-c", "200", "-n", "2000", "-s", "60", *more, f"{url}/7.dat"],
        capture_output=True,
        text=True,
        check=True,
        env=environment(no_proxy="*"),
    )
    found = dict(re.findall(r"^([A-Za-z0-9 -]+):\s+(\d+)", done.stdout, re.MULTILINE))
    assert found["Complete requests"] == "2000", done.stdout
    assert found["Failed requests"] == "0", done.stdout
    assert "Non-2xx responses" not in found, done.stdout


# The tail


def test_trio_tail(backend: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"log {number}" for number in range(20)]
    for path in paths:
        path.write_bytes(b"first\nhalf")
    with start(*paths, program=program("trio_tail"), PORTIO_BACKEND=backend) as command:
        assert {command.line() for _ in paths} == {f"{path}: first" for path in paths}
        for path in paths:
            with path.open("ab") as file:
                file.write(b" a line\n")
        assert {command.line() for _ in paths} == {f"{path}: half a line" for path in paths}
        paths[0].write_bytes(b"cut\n")
        assert command.line() == f"{paths[0]}: cut"
        command.signal(signal.SIGINT)
        result = command.finish()
    assert (result.status, result.errors) == (0, "")
    assert result.output.splitlines() == [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path}" for path in paths
    ]


def test_trio_tail_to_the_end(backend: str, tmp_path: Path) -> None:
    # More than are open at a time; but a command line of Windows has 32767 characters.
    paths = [tmp_path / f"{number}" for number in range(120 if WINDOWS else 700)]
    for number, path in enumerate(paths):
        path.write_bytes(b"%d" % number * number)
    result = run("--end", *paths, program=program("trio_tail"), PORTIO_BACKEND=backend)
    assert result.errors == ""
    assert result.output.splitlines() == [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path}" for path in paths
    ]


def test_trio_tail_without_a_file(backend: str, tmp_path: Path) -> None:
    result = run("--end", tmp_path / "none", program=program("trio_tail"), PORTIO_BACKEND=backend)
    assert said("ENOENT", 2) in result.error_line()
