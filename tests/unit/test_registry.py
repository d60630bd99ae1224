"""Which key holds which descriptor, with keys that only pretend."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

import portio
from portio.registry import Registry, identify
from portio.registry import registry as of_all
from support import handles
from support.marks import needs_chosen_numbers
from support.system import WINDOWS
from support.watch import LIMIT

the_kernel_knows = pytest.mark.skipif(
    WINDOWS, reason="what a handle is, and whether a port has it, the kernel itself knows there"
)


class Key:
    """As much of a CompletionKey as the registry looks at."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.attached = True
        self.open = True

    def means(self, descriptor: int) -> bool:
        return self.open and descriptor == self.descriptor


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        yield sock


def enter(registry: Registry, descriptor: int) -> Any:
    key: Any = Key(descriptor)
    assert registry.check(descriptor, identify(descriptor)) == (None, [])
    registry.add(descriptor, identify(descriptor), key)
    return key


def check(registry: Registry, descriptor: int) -> Any:
    return registry.check(descriptor, identify(descriptor))


def test_a_held_descriptor(registry: Registry, sock: socket.socket) -> None:
    key = enter(registry, sock.fileno())
    assert check(registry, sock.fileno()) == (key, [])
    registry.remove(sock.fileno(), key)
    assert check(registry, sock.fileno()) == (None, [])
    assert len(registry) == 0


def test_a_key_that_was_collected(registry: Registry, sock: socket.socket) -> None:
    key = enter(registry, sock.fileno())
    del key
    assert check(registry, sock.fileno()) == (None, [])
    assert len(registry) == 0


def test_a_key_that_is_no_longer_attached(registry: Registry, sock: socket.socket) -> None:
    key = enter(registry, sock.fileno())
    key.attached = False
    assert check(registry, sock.fileno()) == (None, [])


def test_a_handle_that_knows_it_was_closed(registry: Registry, sock: socket.socket) -> None:
    key = enter(registry, sock.fileno())
    key.open = False
    assert check(registry, sock.fileno()) == (None, [key])
    assert check(registry, sock.fileno()) == (None, [])


@needs_chosen_numbers
def test_a_number_that_means_something_else_now(registry: Registry) -> None:
    first, second = os.pipe(), os.pipe()
    try:
        key = enter(registry, first[0])
        os.dup2(second[0], first[0])  # closed behind our back, and given out again
        assert check(registry, first[0]) == (None, [key])
    finally:
        for descriptor in (*first, *second):
            os.close(descriptor)


@the_kernel_knows
def test_a_number_that_means_nothing_now(registry: Registry, sock: socket.socket) -> None:
    copy = sock.dup().detach()
    key = enter(registry, copy)
    socket.close(copy)
    assert identify(copy) is None
    assert registry.check(copy, None) == (None, [key])


@the_kernel_knows
def test_a_duplicate_of_a_socket(registry: Registry, sock: socket.socket) -> None:
    key = enter(registry, sock.fileno())
    with sock.dup() as copy:
        assert check(registry, copy.fileno()) == (key, [])
        key.open = False
        assert check(registry, copy.fileno()) == (None, [key])
        assert check(registry, copy.fileno()) == (None, [])


def test_two_ends_of_a_pipe_are_two_handles(registry: Registry) -> None:
    reader, writer = handles.open_pipe()  # which Linux gives one identity
    try:
        key = enter(registry, reader)
        assert check(registry, writer) == (None, [])
        assert check(registry, reader) == (key, [])
    finally:
        handles.close(reader)
        handles.close(writer)


def test_an_entry_is_removed_for_its_own_key_only(registry: Registry, sock: socket.socket) -> None:
    key = enter(registry, sock.fileno())
    other: Any = Key(sock.fileno())
    registry.remove(sock.fileno(), other)
    assert check(registry, sock.fileno()) == (key, [])


def test_it_does_not_grow_with_descriptors_that_are_used_again(registry: Registry) -> None:
    keys = []
    for _ in range(100):
        with closing(socket.socket()) as sock:
            descriptor = sock.fileno()
            key: Any = Key(descriptor)
            registry.check(descriptor, identify(descriptor))
            registry.add(descriptor, identify(descriptor), key)
            keys.append(key)
            key.open = False
    assert len(registry) <= 1
    assert len(registry.sockets) <= 1


def test_a_forked_child_begins_anew(registry: Registry, sock: socket.socket) -> None:
    key = enter(registry, sock.fileno())
    registry.lock.acquire()  # as a thread may have that the child has not
    registry.forget_all()
    assert check(registry, sock.fileno()) == (None, [])
    assert key.open


def test_the_engine_identifies_a_handle_alike(backend: str) -> None:
    """What `Port.associate` enters is what a later look at the descriptor is compared with."""
    ours, peer = socket.socketpair()
    reader, writer = handles.open_pipe()
    try:
        with portio.Port(backend=backend) as port:
            for descriptor in (ours.fileno(), reader, writer):
                assert port.associate(descriptor)._identity == identify(descriptor)
    finally:
        handles.close(reader)
        handles.close(writer)
        ours.close()
        peer.close()


@the_kernel_knows
def test_a_duplicate_that_was_opened_already_is_released(backend: str) -> None:
    """The engine opens it before its identity is known; nothing of that is left."""
    ours, peer = socket.socketpair()
    with ours, peer, portio.Port(backend=backend) as port, portio.Port(backend=backend) as other:
        key = port.associate(ours)
        for refuses in (port, other):
            with ours.dup() as copy, pytest.raises(OSError, match="belongs to a port already"):
                refuses.associate(copy)
        receive = portio.Recv(key, bytearray(1))
        port.submit(receive)
        peer.send(b"x")
        done = port.get(LIMIT)
        assert done is not None
        assert done.operation is receive
        port.disassociate(key)
        with ours.dup() as copy:
            other.associate(copy).close()


def test_a_number_of_a_class_of_its_own(backend: str) -> None:
    class Number(int):
        """Who looks for a number must not run what is the program's."""

        def __eq__(self, other: object) -> bool:
            return int(self) == other

        __hash__ = int.__hash__

    with socket.socket() as sock, portio.Port(backend=backend) as port:
        key = port.associate(Number(sock.fileno()))
        held = [number for number, entry in of_all.entries.items() if entry() is key]
        assert [type(number) for number in held] == [int]
        with pytest.raises(OSError, match="belongs"):
            port.associate(sock)
        sock.detach()  # the number is the key's to close
        key.close()
