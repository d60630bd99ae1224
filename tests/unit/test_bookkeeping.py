"""Tokens, entries and pins: what is left after submissions that fail in every way."""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import portio
from portio import accelerator, engine, submission
from portio.operations import base
from support.books import assert_balanced
from support.watch import LIMIT


@pytest.fixture(params=["in C", "with the GIL", "without"])
def claims(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ways of claiming an operation; the last is safe with the GIL as well."""
    monkeypatch.setattr(submission, "_FREE_THREADED", request.param == "without")
    return str(request.param)


@pytest.fixture
def port(backend: str, claims: str) -> Iterator[portio.Port]:
    with portio.Port(backend=backend) as port:
        if claims != "in C":
            accelerator.disconnect(port)
        yield port


@pytest.fixture
def key(port: portio.Port) -> Iterator[portio.CompletionKey]:
    ours, peer = socket.socketpair()
    with ours, peer:
        yield port.associate(ours)


def test_refused_submissions_leave_nothing(port: portio.Port, key: portio.CompletionKey) -> None:
    pending = portio.Recv(key, bytearray(1))
    port.submit(pending)
    buffer = bytearray(1)
    good = portio.Recv(key, buffer)
    closed = portio.Recv(portio.CompletionKey(), bytearray(1))
    bad: Any
    for bad in (pending, closed, portio.Recv(key, b""), portio.Connect(key, 5), "no", None):  # type: ignore[arg-type]
        for operations in ((bad,), (good, bad), (bad, good), (good, bad, portio.Timer(0))):
            for queued in (True, False):
                with pytest.raises((RuntimeError, TypeError, ValueError, BufferError)):
                    port.submit(*operations, queued=queued)
                assert not good.pending
                buffer.append(1)  # no longer pinned
    with pytest.raises(RuntimeError, match="pending already"):
        port.submit(good, portio.Timer(0), good)
    pending.cancel()
    done = port.get(LIMIT)
    assert done is not None
    assert done.operation is pending
    assert port.get(0) is None
    assert_balanced(port)


def test_what_the_engine_refuses_leaves_nothing(
    port: portio.Port, key: portio.CompletionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = portio.Recv(key, bytearray(1))
    monkeypatch.setattr(key, "_id", key._id + engine.GENERATION)  # one that there is not
    for operations in ((operation,), (operation, portio.Timer(0))):
        with pytest.raises(ValueError, match="closed"):
            port.submit(*operations)
        assert not operation.pending
    monkeypatch.undo()
    assert_balanced(port)


def test_many_lives_of_a_slot(port: portio.Port) -> None:
    port.post()
    assert port.get(LIMIT) is not None
    token = port._free.pop()
    life = engine.GENERATION
    port._free.append(engine.TOKENS - life + 1 + (token & (life - 1)))  # the last one
    for number in range(3):
        port.post(None, number)
        operation = portio.Timer(0)
        port.submit(operation)
        taken = [port.get(LIMIT), port.get(LIMIT)]
        assert {done.operation for done in taken if done is not None} == {None, operation}
        assert all(0 < token <= engine.TOKENS for token in port._free)
    assert_balanced(port)


def test_slots_grow_with_what_is_pending(port: portio.Port) -> None:
    for number in range(1000):
        port.post(None, number)
    assert [done.nbytes for done in port.get_many(2000, LIMIT)] == list(range(1000))
    assert_balanced(port)
    assert port._slots == 1024


def test_no_more_slots(port: portio.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MOST_SLOTS", 64)
    for _ in range(63):
        port.post()
    with pytest.raises(OSError, match="are pending"):
        port.post()
    assert len(port.get_many(64, LIMIT)) == 63
    assert_balanced(port)


def test_nothing_is_a_cycle(port: portio.Port, key: portio.CompletionKey) -> None:
    """Operations, their buffers and completions end without the collector."""

    class Mine(portio.Recv):
        pass

    def run(*, queued: bool) -> weakref.ref[Mine]:
        operation = Mine(key, bytearray(1))
        port.submit(operation, queued=queued)
        operation.cancel()
        done = port.get(LIMIT) if queued else operation.wait(LIMIT)
        assert done is not None
        assert done.error is not None
        with pytest.raises(portio.OperationCancelledError):
            done.result()
        with pytest.raises(portio.OperationCancelledError):
            operation.result()
        return weakref.ref(operation)

    gc.disable()
    try:
        assert run(queued=True)() is None
        assert run(queued=False)() is None
    finally:
        gc.enable()


def test_a_closed_port_lets_go(backend: str) -> None:
    ours, peer = socket.socketpair()
    buffer = bytearray(1)
    with ours, peer:
        port = portio.Port(backend=backend)
        queued = portio.Recv(port.associate(ours), buffer)
        unqueued = portio.Timer(1000)
        port.submit(queued)
        port.submit(unqueued, queued=False)
        port.close()
    assert not queued.pending
    buffer.append(1)
    with pytest.raises(RuntimeError, match="has not completed"):
        queued.result()
    with pytest.raises(portio.PortClosedError):
        unqueued.wait(0)


def test_modes_are_the_flags_of_the_door(backend: str) -> None:
    with portio.Port(backend=backend) as port:
        lib = port._lib
        assert (base.QUEUED, base.UNQUEUED, base.QUIET) == (
            0,
            lib.PORTIO_UNQUEUED,
            lib.PORTIO_QUIET,
        )
