"""Packets that one thread fetches and another takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

import portio
from portio.fetching import Fetcher
from support.net import Net
from support.threads import Background
from support.watch import LIMIT


@pytest.fixture
def fetcher(shared_port: portio.Port) -> Fetcher:
    return Fetcher(shared_port)


def test_an_operation_is_pending_until_it_is_taken(
    shared_port: portio.Port, fetcher: Fetcher, net: Net
) -> None:
    ours, peer = net.pair()
    buffer = bytearray(4)
    receive = portio.Recv(shared_port.associate(ours), buffer)
    shared_port.submit(receive)
    peer.sendall(b"data")
    records = fetcher.fetch()
    assert receive.pending
    with pytest.raises(BufferError):  # the system is done with it, but nobody knows
        buffer.append(0)
    with pytest.raises(RuntimeError, match="pending"):
        shared_port.submit(receive)
    (done,) = fetcher.take(records)
    assert done.operation is receive
    assert done.result() == 4
    assert not receive.pending
    assert fetcher.take(records) == []  # as claimed


def test_a_wait_is_ended_by_closing(shared_port: portio.Port, fetcher: Fetcher) -> None:
    fetching = Background(fetcher.fetch)
    shared_port.close()
    for fetch in (fetching.result, fetcher.fetch):
        with pytest.raises(portio.PortClosedError):
            fetch()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_what_cannot_be_taken_is_the_next(
    shared_port: portio.Port, fetcher: Fetcher, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        shared_port.post(nbytes=number)
    take = portio.Port._take
    calls = iter(range(3))

    def fail(port: portio.Port, *record: object) -> None:
        if next(calls) == failing:
            raise MemoryError
        take(port, *record)  # type: ignore[arg-type]

    records = fetcher.fetch()
    with monkeypatch.context() as patch:
        patch.setattr(portio.Port, "_take", fail)
        with pytest.raises(MemoryError):
            fetcher.take(records)
    shared_port.post(nbytes=3)
    found = []
    while len(found) < 4:
        found += [done.nbytes for done in fetcher.take(fetcher.fetch())]
    assert found == [0, 1, 2, 3]
    assert shared_port.get(0) is None


def test_a_fetch_that_fails_loses_nothing(
    shared_port: portio.Port, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    c_get: Callable[..., int] = shared_port._c_get

    def fail(*arguments: object) -> int:
        assert c_get(*arguments) == 1
        raise MemoryError

    shared_port.post(nbytes=7)
    with monkeypatch.context() as patch:
        patch.setattr(shared_port, "_c_get", fail)
        with pytest.raises(MemoryError):
            fetcher.fetch()
    found: list[int] = []
    while not found:
        found += [done.nbytes for done in fetcher.take(fetcher.fetch())]
    assert found == [7]


def test_an_accept_that_the_closing_port_drops(
    shared_port: portio.Port, fetcher: Fetcher, net: Net
) -> None:
    listener = net.listener()
    accept = portio.Accept(shared_port.associate(listener))
    shared_port.submit(accept)
    client = net.client(listener)
    records = fetcher.fetch()
    shared_port.close()
    assert not accept.pending
    assert fetcher.take(records) == []
    client.settimeout(LIMIT)
    with contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""
