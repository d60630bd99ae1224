"""What each connection of a server passes, in C: accepted, associated, received from, closed.

The clauses hold either way, and are tested elsewhere; here is what C has of its own: that it
does the usual case, and what happens where something comes between its steps.
"""

from __future__ import annotations

import gc
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import portio
from portio import accelerator, system
from portio.registry import registry
from support.books import assert_balanced, refuse
from support.marks import needs_c
from support.taking import take
from support.watch import LIMIT

ROUNDS = 100


@pytest.fixture
def port(backend: str) -> Iterator[portio.Port]:
    with portio.Port(backend=backend) as port:
        yield port


@pytest.fixture
def listener(port: portio.Port) -> Iterator[portio.CompletionKey]:
    with port.associate(socket.create_server(("127.0.0.1", 0))) as key:
        yield key


def connect(listener: portio.CompletionKey) -> socket.socket:
    handle = listener.handle
    assert isinstance(handle, socket.socket)
    return socket.create_connection(handle.getsockname())


def keys_of(port: portio.Port) -> list[portio.CompletionKey]:
    """Those that the registry has."""
    keys = [entry() for entry in registry.entries.values()]
    return [key for key in keys if key is not None and key.port is port]


def forget_dropped_keys() -> None:
    """An entry without a key, of another test, has the rule look at who gets its number."""
    with registry.lock:
        for descriptor, entry in [*registry.entries.items()]:
            if entry() is None:
                registry.remove(descriptor)


@needs_c
def test_a_connection_is_served_in_c(
    port: portio.Port, listener: portio.CompletionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, pool = portio.Accept(listener), portio.BufferPool(port, 2, 8)
    port.post()  # the first token is for the rule to make
    take(port)
    forget_dropped_keys()
    for method in ("submit", "take", "associate"):
        monkeypatch.setattr(portio.Port, f"_{method}_by_rule", refuse)
    monkeypatch.setattr(portio.CompletionKey, "_close_by_rule", refuse)
    monkeypatch.setattr(portio.Completion, "_result_by_rule", refuse)

    def serve(peer: socket.socket) -> None:
        port.submit(accept)
        done = port.get()
        assert done is not None
        client = done.result()
        assert (done.nbytes, done.error, done.last, done.payload) == (0, None, True, None)
        assert type(client) is socket.socket
        assert client.getpeername() == peer.getsockname()
        assert (client.family, client.type) == (peer.family, peer.type)
        assert not client.get_inheritable()
        assert accept.result() is client
        data = object()
        with port.associate(client, data) as key:
            assert (key.handle, key.data, key.port) == (client, data, port)
            receive = portio.RecvMultishot(key, pool)
            port.submit(receive)
            for last in (False, True):
                if last:
                    peer.close()
                else:
                    peer.send(b"12345678")
                piece = port.get()
                assert piece is not None
                assert piece.operation is receive
                assert piece.result() == (b"" if last else b"12345678")
                assert piece.last is last
        assert (key.closed, key.port, key.handle, client.fileno()) == (True, None, None, -1)

    for _ in range(3):
        with connect(listener) as peer:
            serve(peer)
    assert_balanced(port)
    assert keys_of(port) == [listener]


@needs_c
def test_failures_are_told_in_c(
    port: portio.Port, listener: portio.CompletionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portio.Port, "_take_by_rule", refuse)
    accept = portio.Accept(listener)
    for _ in range(3):
        port.submit(accept)
        accept.cancel()
        done = port.get()
        assert done is not None
        assert isinstance(done.error, portio.OperationCancelledError)
        with pytest.raises(portio.OperationCancelledError):
            done.result()
        with pytest.raises(portio.OperationCancelledError):
            accept.result()
    timer = portio.Timer(0.0)
    port.submit(timer)
    done = port.get()
    assert done is not None
    assert done.result() is timer.result() is None
    assert_balanced(port)


@pytest.mark.parametrize("by_rule", ["the submission", "the completion", "both"])
def test_either_form_takes_up_what_the_other_has_begun(
    port: portio.Port, listener: portio.CompletionKey, by_rule: str
) -> None:
    rule: Any = port
    accept = portio.Accept(listener)
    for _ in range(ROUNDS):
        with connect(listener) as peer:
            (rule._submit_by_rule if by_rule != "the completion" else port.submit)(accept)
            # What only the rule does: a time-out that is neither None nor 0.
            done = port.get(None if by_rule == "the submission" else LIMIT)
            assert done is not None
            with done.result() as client:
                assert client.getpeername() == peer.getsockname()
    assert_balanced(port)


class Interrupt:
    """Raises KeyboardInterrupt after what it stands for, the first time."""

    def __init__(self, stands_for: Callable[..., Any]) -> None:
        self.stands_for = stands_for
        self.raised = False

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        result = self.stands_for(*arguments, **keywords)
        if not self.raised:
            self.raised = True
            raise KeyboardInterrupt
        return result

    def __get__(self, instance: object, owner: object = None) -> Any:
        return self if instance is None else lambda *all_of: self(instance, *all_of)


def interrupt_as_it_is_made(
    port: portio.Port, accept: portio.Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C when the object has its number, and the record is to be taken again."""
    port.submit(accept)
    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "__init__", Interrupt(socket.socket.__init__))
        with pytest.raises(KeyboardInterrupt):
            port.get()


def test_a_socket_is_not_lost_when_it_is_made(
    port: portio.Port, listener: portio.CompletionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = portio.Accept(listener)
    with connect(listener) as peer:
        interrupt_as_it_is_made(port, accept, monkeypatch)
        gc.collect()
        assert accept.pending
        with take(port).result() as client:
            client.send(b"x")
            assert peer.recv(1) == b"x"
    assert port.get(0) is None  # nor is there a nudge any more
    assert_balanced(port)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, RuntimeError, OSError])
def test_a_socket_that_raises(
    port: portio.Port, listener: portio.CompletionKey, raised: type[BaseException]
) -> None:
    class Socket(socket.socket):
        raises = False

        def fileno(self) -> int:
            if self.raises:
                raise raised
            return super().fileno()

    with connect(listener), Socket() as ours:
        ours.raises = True
        with pytest.raises(raised):
            port.associate(ours)
        assert keys_of(port) == [listener]
        ours.raises = False
        key = port.associate(ours)
        assert set(keys_of(port)) == {listener, key}
        if raised is not OSError:  # which closed sockets raise
            ours.raises = True
            with pytest.raises(raised):
                key.close()
            assert not key.closed
            ours.raises = False
        key.close()
        assert ours.fileno() == -1
    assert keys_of(port) == [listener]


@pytest.mark.parametrize("early", [False, True], ids=["after", "before"])
def test_a_socket_that_raises_when_it_gives_up_its_number(
    port: portio.Port, listener: portio.CompletionKey, early: bool
) -> None:
    class Socket(socket.socket):
        def detach(self) -> int:
            if not early:
                super().detach()
            raise KeyboardInterrupt

    ours = Socket()
    handle = listener.handle
    assert isinstance(handle, socket.socket)
    ours.connect(handle.getsockname())
    peer, _ = handle.accept()
    with peer:
        key = port.associate(ours)
        with pytest.raises(KeyboardInterrupt):
            key.close()
        assert key.closed
        assert peer.recv(1) == b""  # it is closed all the same, and once
        assert ours.fileno() == -1
    assert keys_of(port) == [listener]


def test_a_number_that_is_anothers_by_now(port: portio.Port) -> None:
    """The program closes the socket while its key waits for the registry."""
    asked = threading.Semaphore(0)

    class Socket(socket.socket):
        def fileno(self) -> int:
            number = super().fileno()
            asked.release()
            return number

    ours = Socket()
    key = port.associate(ours)
    while asked.acquire(blocking=False):
        pass
    number = ours.fileno()
    assert asked.acquire(blocking=False)
    thread = threading.Thread(target=key.close)
    with registry.lock:
        thread.start()
        for _ in range(1 + accelerator.ACCELERATED):  # C asks, and then the rule
            assert asked.acquire(timeout=LIMIT)
        ours.close()
        others = [socket.socket()]
        while others[-1].fileno() != number and len(others) < ROUNDS:
            others.append(socket.socket())
    thread.join(LIMIT)
    assert not thread.is_alive()
    for other in others:
        with other:
            other.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)  # it is open


@needs_c
def test_a_duplicate_is_given_back_in_c(port: portio.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python code, where a signal handler may come first, has no part in it."""
    forget_dropped_keys()
    monkeypatch.setattr(portio.Port, "_forget", refuse)
    monkeypatch.setattr(portio.Port, "_open_by_the_books", refuse)
    with socket.socket() as ours, ours.dup() as copy, port.associate(ours):
        with pytest.raises(AssertionError):  # the rule's turn
            port.associate(copy)
        assert len(keys_of(port)) == 1


def test_a_port_that_closes_with_a_socket_half_made(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = portio.Port(backend=backend)
        listener = port.associate(server)
        accept = portio.Accept(listener)
        with connect(listener) as peer:
            interrupt_as_it_is_made(port, accept, monkeypatch)
            close = socket.close
            others = []

            def close_and_reuse(number: int) -> None:
                close(number)
                others.append(socket.socket())

            monkeypatch.setattr(socket, "close", close_and_reuse)
            port.close()
            monkeypatch.undo()
            peer.settimeout(LIMIT)
            assert peer.recv(1) == b""
            del accept, port
            gc.collect()
            (other,) = others
            with other:
                other.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)  # it is open
        del listener


def test_a_socket_that_closes_its_key_as_that_is_closed(port: portio.Port) -> None:
    class Socket(socket.socket):
        key: portio.CompletionKey | None = None

        def fileno(self) -> int:
            key, self.key = self.key, None
            if key is not None:
                key.close()
            return super().fileno()

    ours = Socket()
    ours.key = key = port.associate(ours)
    key.close()
    assert key.closed
    assert ours.fileno() == -1
    assert keys_of(port) == []


def test_the_registry_is_waited_for(port: portio.Port) -> None:
    """Whoever has its lock may be between a look and an entry."""
    with socket.socket() as ours:
        done = threading.Event()
        keys = []

        def associate() -> None:
            keys.append(port.associate(ours))
            keys[0].close()
            done.set()

        thread = threading.Thread(target=associate)
        with registry.lock:
            thread.start()
            assert not done.wait(0.05)
        thread.join(LIMIT)
        assert done.is_set()


@pytest.mark.parametrize("wrong", [(), (1, 2, 3), (None,), ("text",)])
def test_what_cannot_be_associated(port: portio.Port, wrong: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        port.associate(*wrong)
    with socket.socket() as ours, pytest.raises(TypeError):
        port.associate(ours, datum=None)  # type: ignore[call-arg]
    closed = socket.socket()
    closed.close()
    with pytest.raises(ValueError, match="not open"):
        port.associate(closed)
    assert keys_of(port) == []


def test_duplicates_are_refused(port: portio.Port) -> None:
    with socket.socket() as ours, ours.dup() as copy:
        key = port.associate(ours)
        for other in (ours, copy):
            with pytest.raises(OSError, match="belongs to a port"):
                port.associate(other)
        key.close()
        if not system.KERNEL_KEEPS_OWNERS:  # there it is the file behind it that belongs to a port
            with port.associate(copy):
                pass
    assert keys_of(port) == []


def test_a_key_that_is_dropped_gives_its_socket_back(port: portio.Port) -> None:
    with socket.socket() as ours:
        for _ in range(ROUNDS):
            key = port.associate(ours)
            watch = weakref.ref(key)
            del key
            assert watch() is None
        assert ours.fileno() >= 0


@needs_c
def test_nothing_is_counted_wrong(port: portio.Port, listener: portio.CompletionKey) -> None:
    """Each object that passes has as many references afterwards as before."""
    accept, pool, data = portio.Accept(listener), portio.BufferPool(port, 1, 4), object()
    listener.accepting_form()
    watched = (
        *(accept, pool, data, port, listener, listener.handle, listener._accepting),
        *(socket.socket, portio.CompletionKey, portio.RecvMultishot, portio.Completion),
        *(registry, registry.lock, registry.entries, registry.sockets, port._pending),
    )

    def walk() -> None:
        for round_ in range(ROUNDS):
            with connect(listener):
                port.submit(accept)
                done = port.get()
                assert done is not None
                client = done.result()
                key = port.associate(client, data)
                with pytest.raises(OSError, match="belongs to a port"):
                    port.associate(client)
                port.submit(portio.RecvMultishot(key, pool))
                if round_ % 2:
                    key.close()
                    port.get()
            if not round_ % 2:
                port.get()
                key.close()

    walk()
    gc.collect()
    before = [sys.getrefcount(each) for each in watched]
    blocks = sys.getallocatedblocks()
    walk()
    gc.collect()
    after = [sys.getrefcount(each) for each in watched]
    for each, old, new in zip(watched, before, after, strict=True):
        assert abs(new - old) < ROUNDS // 2, each
    assert sys.getallocatedblocks() - blocks < ROUNDS
    assert_balanced(port)
