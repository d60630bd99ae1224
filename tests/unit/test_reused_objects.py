"""Objects that the accelerator uses again: nobody who has seen one may see it change."""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import portio
from support.accepted import forget_the_dead
from support.books import assert_balanced, refuse
from support.marks import needs_c
from support.taking import take

ROUNDS = 5
SETTLE, TOKEN = 2, 4  # of an entry (operations/base.py)
SPARES = 64  # as in spares.h

pytestmark = needs_c


@pytest.fixture
def port(backend: str) -> Iterator[portio.Port]:
    with portio.Port(backend=backend, thread_bound=True) as port:
        yield port


@pytest.fixture
def listener(port: portio.Port) -> Iterator[portio.CompletionKey]:
    with port.associate(socket.create_server(("127.0.0.1", 0))) as key:
        yield key


@pytest.fixture
def stream(port: portio.Port) -> Iterator[tuple[portio.CompletionKey, socket.socket]]:
    ours, peer = socket.socketpair()
    with peer, port.associate(ours) as key:
        yield key, peer


def entry_of(operation: Any) -> Any:
    return operation._entry


def end(port: portio.Port, operation: portio.Operation[Any]) -> None:
    operation.cancel()
    done = take(port)
    assert done.last
    assert_balanced(port)


# Completions


def received(
    port: portio.Port, stream: tuple[portio.CompletionKey, socket.socket], size: int
) -> portio.Completion[Any]:
    """Of an operation: a posted packet's completion is made by Python, anew each time."""
    key, peer = stream
    peer.send(bytes(size))
    port.submit(portio.Recv(key, bytearray(size)))
    return take(port)


def test_a_completion_in_the_place_of_another(
    port: portio.Port, stream: tuple[portio.CompletionKey, socket.socket]
) -> None:
    """It is a new one to whoever watched the other, and to the collector."""
    gone: list[object] = []
    watched = []
    for number in range(1, ROUNDS + 1):
        done = received(port, stream, number)
        assert gc.is_tracked(done)
        assert (done.nbytes, done.key, done.error, done.payload) == (number, stream[0], None, None)
        assert weakref.getweakrefcount(done) == 0
        watched.append(weakref.ref(done, gone.append))
        del done
        assert gone == watched
    assert [each() for each in watched] == [None] * ROUNDS


def test_an_error_is_not_the_next_completions(
    port: portio.Port, stream: tuple[portio.CompletionKey, socket.socket]
) -> None:
    cancelled = portio.Recv(stream[0], bytearray(1))
    port.submit(cancelled)
    cancelled.cancel()
    done = take(port)
    assert isinstance(done.error, portio.OperationCancelledError)
    del done
    assert received(port, stream, 1).error is None


def test_more_completions_than_are_kept(
    port: portio.Port, stream: tuple[portio.CompletionKey, socket.socket]
) -> None:
    """Held together, dropped together, and again."""
    for _ in range(2):
        batch = [received(port, stream, size) for size in range(1, 3 * SPARES)]
        assert [done.nbytes for done in batch] == [*range(1, 3 * SPARES)]
        assert len({id(done) for done in batch}) == len(batch)


class Finished(portio.Completion[Any]):
    """A class of the program's: ports do not make such."""

    __slots__ = ("more",)


def test_a_completion_of_another_class_is_not_taken_for_one(
    port: portio.Port, stream: tuple[portio.CompletionKey, socket.socket]
) -> None:
    key, peer = stream
    receives = [portio.Recv(key, bytearray(1)) for _ in range(2 * SPARES)]
    port.submit(*receives)
    peer.send(bytes(len(receives)))
    held: list[portio.Completion[Any]] = []  # none is left to be used again
    while len(held) < len(receives):
        held += port.get_many(256)
    for _ in range(SPARES):
        Finished().more = None  # made and dropped
    port.submit(*receives)
    peer.send(bytes(len(receives)))
    for receive in receives:
        done = take(port)
        assert type(done) is portio.Completion
        assert not hasattr(done, "more")
        assert done.operation is receive
        held.append(done)


def test_a_completion_that_has_a_finalizer(
    port: portio.Port,
    stream: tuple[portio.CompletionKey, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program may give the class one, to see leaks for instance: it is called for each."""
    key, peer = stream
    gone: list[int] = []
    monkeypatch.setattr(portio.Completion, "__del__", lambda self: gone.append(id(self)), False)
    for number in range(ROUNDS):
        peer.send(b"x")
        port.submit(portio.Recv(key, bytearray(1)))
        assert take(port).nbytes == 1
        assert len(gone) == number + 1


# Entries of multishot operations


@pytest.mark.parametrize("kind", [portio.RecvMultishot, portio.RecvLent])
def test_the_entry_of_a_piece_that_nobody_has_seen(
    port: portio.Port,
    stream: tuple[portio.CompletionKey, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    kind: type[portio.RecvMultishot | portio.RecvLent],
) -> None:
    key, peer = stream
    receive = kind(key, portio.BufferPool(port, 2, 8))
    port.submit(receive)
    tokens = {entry_of(receive)[TOKEN]}
    places = {id(entry_of(receive))}
    with monkeypatch.context() as patched:
        patched.setattr(portio.Port, "_take_by_rule", refuse)
        for number in range(ROUNDS):
            peer.send(b"%08d" % number)
            assert bytes(take(port).result()) == b"%08d" % number
            places.add(id(entry_of(receive)))
            tokens.add(entry_of(receive)[TOKEN])
    assert len(places) == 1
    assert len(tokens) == ROUNDS + 1  # every turn has its own
    assert {*port._pending.copy()} == {entry_of(receive)[TOKEN]}
    end(port, receive)


def test_the_entry_of_a_piece_that_somebody_has(
    port: portio.Port, stream: tuple[portio.CompletionKey, socket.socket]
) -> None:
    """Who is about to cancel has it, and reads the token later."""
    key, peer = stream
    receive = portio.RecvMultishot(key, portio.BufferPool(port, 2, 8))
    port.submit(receive)
    seen = []
    for number in range(ROUNDS):
        entry = entry_of(receive)
        seen.append((entry, entry[TOKEN]))
        peer.send(b"%08d" % number)
        assert take(port).result() == b"%08d" % number
    assert all(entry[TOKEN] == token for entry, token in seen)
    assert len({token for _, token in seen}) == ROUNDS
    end(port, receive)


# What settles connections


def accept(port: portio.Port, listener: portio.CompletionKey) -> portio.CompletionKey:
    with socket.create_connection(listener.handle.getsockname()):  # type: ignore[union-attr]
        done = take(port)
        assert (done.nbytes, done.error, done.last, done.payload) == (0, None, False, None)
        key: portio.CompletionKey = done.result()
        assert type(key) is portio.CompletionKey
        assert key.port is port
        return key


@pytest.mark.parametrize("seen", [None, "entry", "settle"])
def test_what_settles_the_next_connection(
    port: portio.Port, listener: portio.CompletionKey, seen: str | None
) -> None:
    """The same as before, unless somebody has seen it; either way each has its own key."""
    forget_the_dead()
    operation = portio.AcceptKey(listener, multishot=True)
    port.submit(operation)
    keys, held = [], []
    places = set()
    for _ in range(ROUNDS):
        entry = entry_of(operation)
        places.add(id(entry[SETTLE]))
        if seen is not None:
            held.append(entry if seen == "entry" else entry[SETTLE])
        del entry
        keys.append(accept(port, listener))
    assert len(places) == (1 if seen is None else ROUNDS)
    assert len({id(key) for key in keys}) == ROUNDS
    assert len({key._descriptor for key in keys}) == ROUNDS
    for key in keys:
        key.close()
    end(port, operation)


# Finalizers, which run wherever an object is made that the collector counts


class Watcher:
    """Garbage as soon as it is made; looks at the operation's entry when it is collected."""

    def __init__(self, operation: Any, seen: list[tuple[Any, int, Any]]) -> None:
        self.itself = self
        self.operation = operation
        self.seen = seen

    def __del__(self) -> None:
        entry = entry_of(self.operation)
        if entry is not None:
            self.seen.append((entry, entry[TOKEN], entry[SETTLE]))


@pytest.fixture
def busy_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(1)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("busy_collector")
@pytest.mark.parametrize(
    ("kind", "hold"),
    [(portio.RecvLent, False), (portio.RecvMultishot, False), (portio.RecvMultishot, True)],
)
def test_an_entry_that_a_finalizer_has_seen(
    port: portio.Port,
    stream: tuple[portio.CompletionKey, socket.socket],
    kind: type[portio.RecvMultishot | portio.RecvLent],
    hold: bool,
) -> None:
    """At any step; right before the claim where completions are held, and one has to be made."""
    key, peer = stream
    receiving = kind(key, portio.BufferPool(port, 2, 8))
    port.submit(receiving)
    seen: list[tuple[Any, int, Any]] = []
    held = []
    for number in range(200):
        gc.set_threshold(1 + number % 4)
        Watcher(receiving, seen)
        peer.send(b"%08d" % number)
        done = take(port)
        assert bytes(done.result()) == b"%08d" % number
        if hold:
            held.append(done)
        del done
    gc.collect()
    assert len(seen) == 200
    assert all(entry[TOKEN] == token for entry, token, _ in seen)
    end(port, receiving)


@pytest.mark.usefixtures("busy_collector")
def test_what_settles_a_connection_that_a_finalizer_has_seen(
    port: portio.Port, listener: portio.CompletionKey
) -> None:
    operation = portio.AcceptKey(listener, multishot=True)
    port.submit(operation)
    seen: list[tuple[Any, int, Any]] = []
    keys = []
    for _ in range(50):
        Watcher(operation, seen)
        keys.append(accept(port, listener))
    gc.collect()
    assert len(seen) == 50
    assert len({id(key) for key in keys}) == len({key._descriptor for key in keys}) == 50
    assert all((entry[TOKEN], entry[SETTLE]) == (token, it) for entry, token, it in seen)
    for key in keys:
        key.close()
    end(port, operation)
