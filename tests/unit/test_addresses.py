"""Socket addresses, compared with what the kernel and the socket module make of them."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portio import addresses
from support.marks import needs_unix_sockets
from support.system import WINDOWS

UNIX = getattr(socket, "AF_UNIX", addresses._AF_UNIX)
INET = socket.AF_INET
INET6 = socket.AF_INET6

PORTS = st.integers(0, 65535)


@given(st.ip_addresses(v=4), PORTS)
def test_ipv4_comes_back(host: Any, port: int) -> None:
    raw = addresses.encode(INET, (str(host), port))
    assert len(raw) == 16
    assert addresses.decode(raw) == (str(host), port)


@given(st.ip_addresses(v=6), PORTS, st.integers(0, 0xFFFFF), st.integers(0, 2**32 - 1))
def test_ipv6_comes_back(host: Any, port: int, flow: int, scope: int) -> None:
    raw = addresses.encode(INET6, (str(host), port, flow, scope))
    assert len(raw) == 28
    name, *numbers = addresses.decode(raw)
    assert socket.inet_pton(INET6, name) == host.packed
    assert numbers == [port, flow, scope]


def kernel_address(sock: socket.socket) -> bytes:
    """The address of a socket, as the system has it."""
    libc = ctypes.CDLL("ws2_32" if WINDOWS else None, use_errno=True)
    raw = ctypes.create_string_buffer(addresses.SIZE)
    size = ctypes.c_uint32(addresses.SIZE)
    assert libc.getsockname(sock.fileno(), raw, ctypes.byref(size)) == 0
    return raw.raw[: size.value]


@pytest.mark.parametrize("family", [INET, INET6])
def test_the_system_has_the_same_bytes(family: socket.AddressFamily) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("127.0.0.1" if family == INET else "::1", 0))
        except OSError as error:
            pytest.skip(f"no such address here: {error}")
        raw = kernel_address(sock)
        assert addresses.decode(raw) == sock.getsockname()
        assert addresses.encode(family, sock.getsockname()) == raw


@needs_unix_sockets
@pytest.mark.parametrize(
    "name", ["path", b"other path", "\0abstract", b"\0with\0zeros\0", "ümlaut"]
)
def test_unix_names_as_the_system_has_them(
    name: str | bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    abstract = os.fsencode(name)[:1] == b"\0"
    with socket.socket(UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        raw = kernel_address(sock)
        assert addresses.encode(UNIX, name) == raw
        assert addresses.decode(raw) == sock.getsockname()
        assert isinstance(addresses.decode(raw), bytes if abstract else str)


@needs_unix_sockets
def test_unix_takes_paths_of_pathlib() -> None:
    assert addresses.encode(UNIX, Path("/x")) == addresses.encode(UNIX, "/x")


@needs_unix_sockets
def test_names_that_are_as_long_as_can_be() -> None:
    addresses.encode(UNIX, "p" * 107)
    addresses.encode(UNIX, b"\0" + b"a" * 107)
    for name in ("p" * 108, b"\0" + b"a" * 108):
        with pytest.raises(ValueError, match="bytes"):
            addresses.encode(UNIX, name)


def test_unnamed_and_unknown_senders() -> None:
    assert addresses.decode(b"") is None
    assert addresses.decode(b"\x01") is None
    if not WINDOWS:
        assert addresses.decode(addresses.encode(UNIX, "x")[:2]) == ""
    assert addresses.decode(b"\xff\x00rest") == (255, b"rest")


def test_short_forms() -> None:
    assert addresses.decode(addresses.encode(INET, ("", 1))) == ("0.0.0.0", 1)
    assert addresses.decode(addresses.encode(INET, ("<broadcast>", 1)))[0] == "255.255.255.255"
    assert addresses.decode(addresses.encode(INET6, ("", 1))) == ("::", 1, 0, 0)
    assert addresses.decode(addresses.encode(INET6, ("::1", 1, 2))) == ("::1", 1, 2, 0)


def test_zones() -> None:
    assert addresses.decode(addresses.encode(INET6, ("fe80::1%7", 1)))[3] == 7
    index, name = socket.if_nameindex()[0]
    assert addresses.decode(addresses.encode(INET6, (f"fe80::1%{name}", 1)))[3] == index
    for zone in ("no-such-interface", "", "4294967296"):
        with pytest.raises(ValueError, match="network interface"):
            addresses.encode(INET6, (f"fe80::1%{zone}", 1))


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (INET, ("localhost", 80)),
        (INET, ("example.org", 80)),
        (INET, ("::1", 80)),
        (INET, ("127.1", 80)),
        (INET, ("1.2.3.4\0", 80)),
        (INET6, ("localhost", 80)),
        (INET6, ("127.0.0.1", 80)),
    ],
)
def test_names_must_be_resolved_first(family: int, address: Any) -> None:
    with pytest.raises(ValueError, match="resolve a host name first"):
        addresses.encode(family, address)


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (INET, ("127.0.0.1", -1)),
        (INET, ("127.0.0.1", 65536)),
        (INET6, ("::1", 1, -1)),
        (INET6, ("::1", 1, 0x100000)),
        (INET6, ("::1", 1, 0, -1)),
        (INET6, ("::1", 1, 0, 2**32)),
        pytest.param(UNIX, "", marks=needs_unix_sockets),
        pytest.param(UNIX, "a\0b", marks=needs_unix_sockets),
        (255, ("127.0.0.1", 1)),
    ],
)
def test_values_out_of_range(family: int, address: Any) -> None:
    with pytest.raises(ValueError, match=r"from 0|not a path|family"):
        addresses.encode(family, address)


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (INET, "127.0.0.1"),
        (INET, ("127.0.0.1",)),
        (INET, ("127.0.0.1", 1, 0)),
        (INET, ["127.0.0.1", 1]),
        (INET, ("127.0.0.1", "1")),
        (INET, (b"127.0.0.1", 1)),
        (INET, None),
        (INET6, ("::1",)),
        (INET6, ("::1", 1, 0, 0, 0)),
        (INET6, ("::1", 1.0)),
        pytest.param(UNIX, ("path", 1), marks=needs_unix_sockets),
        pytest.param(UNIX, 5, marks=needs_unix_sockets),
    ],
)
def test_wrong_forms(family: int, address: Any) -> None:
    with pytest.raises(TypeError, match="the address"):
        addresses.encode(family, address)
