"""Multishot operations between two completions: interrupted, dropped, at a slot's last life."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

import portio
from portio import engine
from portio.operations import numbers
from portio.operations.base import Entry
from portio.turns import Turns
from support.watch import LIMIT


class Accept(portio.Accept):
    """Is for Python to carry on, since it begins its turns in its own way."""

    def _next_turn(self, entry: Entry, token: int) -> Entry:
        return super()._next_turn(entry, token)


@pytest.fixture(params=["shared", "thread_bound"])
def port(backend: str, request: pytest.FixtureRequest) -> Iterator[portio.Port]:
    with portio.Port(backend=backend, thread_bound=request.param == "thread_bound") as port:
        yield port


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def connect_and_take(port: portio.Port, listener: socket.socket) -> None:
    """One client more, and its completion."""
    with socket.create_connection(listener.getsockname()):
        take_client(port)


def take_client(port: portio.Port) -> None:
    done = port.get(LIMIT)
    assert done is not None
    assert not done.last
    done.result().close()


def end(port: portio.Port, accept: Accept) -> None:
    accept.cancel()
    done = port.get(LIMIT)
    assert done is not None
    assert done.last
    assert port.get(0) is None
    assert port._pending == {}
    assert port._due == {}
    slots = [token & (engine.GENERATION - 1) for token in port._free]
    assert sorted(slots) == list(range(1, port._slots))


@pytest.mark.parametrize("late", [False, True], ids=["before the call", "after it"])
@pytest.mark.parametrize("many", [False, True], ids=["get", "get_many"])
def test_an_interrupt_before_the_next_turn_has_begun(
    port: portio.Port,
    listener: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    *,
    late: bool,
    many: bool,
) -> None:
    """It delays the next turn, and loses and repeats nothing."""
    accept = Accept(port.associate(listener), multishot=True)
    port.submit(accept)
    renew = Turns._renew

    def interrupted(self: Any, following: int, token: int) -> None:
        monkeypatch.undo()
        if late:
            renew(self, following, token)
        raise KeyboardInterrupt

    for _ in range(3):
        monkeypatch.setattr(Turns, "_renew", interrupted)
        with socket.create_connection(listener.getsockname()):
            with pytest.raises(KeyboardInterrupt):
                port.get_many(10, LIMIT) if many else port.get(LIMIT)
            assert accept.pending
            take_client(port)
        connect_and_take(port, listener)
    end(port, accept)


def test_a_cancel_between_two_turns(
    port: portio.Port, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = Accept(port.associate(listener), multishot=True)
    renew = Turns._renew

    def cancelled(self: Any, following: int, token: int) -> None:
        monkeypatch.undo()
        accept.cancel()
        renew(self, following, token)

    for _ in range(3):
        port.submit(accept)
        connect_and_take(port, listener)
        monkeypatch.setattr(Turns, "_renew", cancelled)
        with socket.create_connection(listener.getsockname()):
            take_client(port)
            with socket.create_connection(listener.getsockname()):
                done = port.get(LIMIT)  # of the client that was not accepted
                assert done is not None
                assert isinstance(done.error, portio.OperationCancelledError)
            listener.settimeout(LIMIT)
            listener.accept()[0].close()


def test_a_close_between_two_turns(
    backend: str, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The completion is the program's; there is no other."""
    port = portio.Port(backend=backend)
    accept = Accept(port.associate(listener), multishot=True)
    port.submit(accept)
    renew = Turns._renew

    def closed(self: Any, following: int, token: int) -> None:
        port.close()
        assert not accept.pending
        renew(self, following, token)

    monkeypatch.setattr(Turns, "_renew", closed)
    connect_and_take(port, listener)
    assert not accept.pending
    assert port._pending == {}
    with pytest.raises(portio.PortClosedError):
        port.get(0)


def test_the_last_life_of_a_slot(port: portio.Port, listener: socket.socket) -> None:
    """After it a slot starts again, also in the middle of an operation."""
    port.submit(portio.Timer(0))
    assert port.get(LIMIT) is not None
    token = port._free.pop()
    port._free.append(engine.TOKENS - engine.GENERATION + 1 + (token & (engine.GENERATION - 1)))
    accept = Accept(port.associate(listener), multishot=True)
    port.submit(accept)
    for _ in range(4):
        connect_and_take(port, listener)
        assert all(0 < token <= engine.TOKENS for token in port._pending)
    end(port, accept)


def test_nothing_is_a_token_of_another(port: portio.Port, listener: socket.socket) -> None:
    """A request to cancel that is late does not reach the slot's next operation."""
    accept = Accept(port.associate(listener), multishot=True)
    port.submit(accept)
    stale = []
    for _ in range(3):
        entry = accept._entry
        assert entry is not None
        stale.append(entry[4])
        connect_and_take(port, listener)
    end(port, accept)
    port.submit(accept)
    assert accept._entry is not None
    assert accept._entry[4] & (engine.GENERATION - 1) == stale[0] & (engine.GENERATION - 1)
    for token in stale:
        port._cancel(token)
    connect_and_take(port, listener)
    end(port, accept)


def test_only_what_can_go_on(port: portio.Port, listener: socket.socket) -> None:
    """The door refuses what the Python layer does not ask for."""
    key = port.associate(listener)
    lib = port._lib
    flags = lib.PORTIO_MULTISHOT
    for kind, flag in (
        (numbers.ACCEPT, flags | lib.PORTIO_UNQUEUED),
        (numbers.ACCEPT, flags | lib.PORTIO_QUIET),
        (numbers.SEND, flags),
        (numbers.RECV, flags),  # without a pool
    ):
        token = port._new_token()
        refused = lib.portio_submit_one(port._native, kind, flag, key._id, token, port._null, 0, 0)
        assert refused == lib.PORTIO_INVALID
        port._free.append(token)
    assert lib.portio_renew(port._native, port._free[-1], 0) == lib.PORTIO_INVALID
