"""Connections that have come with their keys."""

from __future__ import annotations

import socket

import portio
from portio.registry import registry
from support.drivers import Driver
from support.net import Net

Connection = tuple[portio.CompletionKey, socket.socket]


def connection(driver: Driver, net: Net, family: str = "inet") -> Connection:
    """An accepted key, which nobody but the caller has, and its peer."""
    listener = net.listener(family)
    peer = net.client(listener)
    listening = driver.associate(listener)
    key = driver.result(portio.AcceptKey(listening))
    driver.close_key(listening)
    return key, peer


def handle_of(key: portio.CompletionKey) -> socket.socket:
    handle = key.handle
    assert isinstance(handle, socket.socket)
    return handle


def assert_at_end(peer: socket.socket) -> None:
    """The connection has ended, in one way or the other."""
    try:
        assert peer.recv(1) == b""
    except ConnectionResetError:
        pass


def keys_of(port: portio.Port) -> list[portio.CompletionKey]:
    """Those that the registry has."""
    keys = [entry() for entry in [*registry.entries.values()]]
    return [key for key in keys if key is not None and key.port is port]


def forget_the_dead() -> None:
    """Keys of other tests, not closed: a connection that gets their number is for the rule."""
    with registry.lock:
        for descriptor, entry in [*registry.entries.items()]:
            if entry() is None:
                registry.remove(descriptor)
