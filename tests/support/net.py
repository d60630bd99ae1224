"""Sockets of every family, and the peer's side of a conversation."""

from __future__ import annotations

import array
import contextlib
import os
import shutil
import socket
import struct
import sys
import tempfile
from typing import Any

import pytest

from support.system import WINDOWS
from support.watch import LIMIT

LINGER = "HH" if WINDOWS else "ii"
"""The system's struct linger."""

STREAMS = ("inet", "inet6", "unix")
"""The families a stream socket may have."""

_HOSTS = {"inet": "127.0.0.1", "inet6": "::1"}
Address = Any


def number(family: str) -> int:
    """The family's constant, or a skip where this machine lacks the family."""
    if family == "inet":
        return socket.AF_INET
    if family == "unix":
        if not hasattr(socket, "AF_UNIX"):
            pytest.skip("Python has no Unix sockets on this system")
        return socket.AF_UNIX
    assert family == "inet6"
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    return socket.AF_INET6


def datagram_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected datagram sockets of this machine."""
    if not WINDOWS:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for sock in (one, other):
        sock.bind(("127.0.0.1", 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    one.connect(other.getsockname())
    other.connect(one.getsockname())
    return one, other


class Net:
    """Makes sockets and closes them at the end of the test.

    Every socket made here gives up after LIMIT when the test uses it with its
    own hands, so that a lost byte is a failure and not a hang.
    """

    def __init__(self, closing: contextlib.ExitStack) -> None:
        self._closing = closing
        self._folder: str | None = None
        self._names = 0

    def own(self, sock: socket.socket) -> socket.socket:
        """Close this socket at the end of the test."""
        self._closing.callback(_close, sock)
        return sock

    def socket(self, family: str = "inet", kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A new socket, neither bound nor connected."""
        return self.own(socket.socket(number(family), kind))

    def free_address(self, family: str = "inet") -> Address:
        """An address to bind to: any port of the loopback, or a new path."""
        if family != "unix":
            return (_HOSTS[family], 0)
        if self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="portio-")
            self._closing.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._names += 1
        return os.path.join(self._folder, f"s{self._names}")

    def listener(self, family: str = "inet", backlog: int = 128) -> socket.socket:
        sock = self.socket(family)
        sock.bind(self.free_address(family))
        sock.listen(backlog)
        return sock

    def client(self, listener: socket.socket) -> socket.socket:
        """A peer that has connected to this listener."""
        peer = self.own(socket.socket(listener.family))
        peer.settimeout(LIMIT)
        peer.connect(listener.getsockname())
        return peer

    def pair(self, family: str = "inet") -> tuple[socket.socket, socket.socket]:
        """A connected stream: our end, untouched, and the peer's, with a time-out."""
        listener = self.listener(family, 1)
        peer = self.client(listener)
        listener.settimeout(LIMIT)
        ours, _ = listener.accept()
        ours.settimeout(None)
        return self.own(ours), peer

    def small_pair(self, family: str = "inet") -> tuple[socket.socket, socket.socket]:
        """A pair between which well under a megabyte fits until the peer reads."""
        size = 65536  # with less, TCP takes seconds for a megabyte
        ours, peer = self.pair(family)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        return ours, peer

    def datagram(self, family: str = "inet") -> socket.socket:
        """A bound datagram socket."""
        sock = self.socket(family, socket.SOCK_DGRAM)
        sock.bind(self.free_address(family))
        sock.settimeout(LIMIT)
        return sock

    def refused_address(self, family: str = "inet") -> Address:
        """An address on which nobody listens: bound by a socket that never will."""
        sock = self.socket(family)
        sock.bind(self.free_address(family))
        return sock.getsockname()

    def full_listener(self) -> socket.socket:
        """A listener that takes no further connection: a connect to it stays pending."""
        listener = self.listener(backlog=0)
        while True:
            client = self.own(socket.socket(listener.family))
            client.settimeout(0.2)
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                return listener


def _close(sock: socket.socket) -> None:
    # The descriptor may have been closed through its key already.
    with contextlib.suppress(OSError):
        sock.close()


def reset(sock: socket.socket) -> None:
    """Close a TCP socket so that its peer sees a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(LINGER, 1, 0))
    sock.close()


def recv_exactly(sock: socket.socket, count: int) -> bytes:
    """Exactly so many bytes, or fewer at the end of the stream."""
    data = bytearray()
    while len(data) < count:
        chunk = sock.recv(min(count - len(data), 1 << 20))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def recv_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def recv_count(sock: socket.socket) -> int:
    """How many bytes come before the end of the stream, without keeping them."""
    buffer = bytearray(1 << 20)
    total = 0
    while count := sock.recv_into(buffer):
        total += count
    return total


def fill(sock: socket.socket) -> int:
    """Send until nothing more fits; how many bytes did."""
    sock.setblocking(False)
    total = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            total += sock.send(b"\xff" * 65536)
    sock.setblocking(True)
    return total


def pattern(count: int, start: int = 0) -> bytes:
    """Bytes in which every misplaced, lost or doubled piece shows."""
    global _pattern  # noqa: PLW0603 - made once, and longer when more is asked for
    if start + count > _PATTERN_MOST:
        return _make_pattern(count, start)
    if start + count > len(_pattern):
        _pattern = _make_pattern(max(start + count, 2 * len(_pattern)), 0)
    return _pattern[start : start + count]


_PATTERN_MOST = 32 << 20
_pattern = b""


def _make_pattern(count: int, start: int) -> bytes:
    words = array.array("I", range(start // 4, (start + count) // 4 + 1))
    assert words.itemsize == 4
    if sys.byteorder == "little":
        words.byteswap()
    return words.tobytes()[start % 4 : start % 4 + count]
