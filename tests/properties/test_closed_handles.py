"""A handle that the program closes itself, without a word to its port."""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Iterator

import pytest

import portio
from support.marks import wine_forgets_who_sends
from support.system import WINDOWS
from support.watch import LIMIT

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture
def port(backend: str, *, thread_bound: bool) -> Iterator[portio.Port]:
    """A port of each kind."""
    with portio.Port(backend=backend, thread_bound=thread_bound) as port:
        yield port


def pair_with(number: int) -> tuple[socket.socket, socket.socket]:
    """A pair of which one end has the number that was freed: here the lowest."""
    pairs = []
    try:
        while True:
            pairs.append(pair := socket.socketpair())
            if number in (pair[0].fileno(), pair[1].fileno()):
                pairs.pop()
                return pair
            assert WINDOWS, "the lowest number was not given out"
            if len(pairs) == 50:  # it is kept for something else: a little less is proved
                print(f"the number {number} did not come back")
                return pairs.pop()
    finally:
        for one, other in pairs:
            one.close()
            other.close()


def test_submit(port: portio.Port) -> None:
    """Nothing starts on a closed handle, whoever owns its number now."""
    ours, peer = socket.socketpair()
    key = port.associate(ours)
    number = ours.fileno()
    ours.close()
    other, other_peer = pair_with(number)
    with peer, other, other_peer:
        other.send(b"not for you")
        other_peer.send(b"not for you")
        for operation in (portio.Recv(key, bytearray(64)), portio.Send(key, b"from the dead")):
            with pytest.raises(ValueError, match="closed"):
                port.submit(operation)
            assert not operation.pending
        assert port.get(0) is None
        assert other.recv(64) == b"not for you"
        assert other_peer.recv(64) == b"not for you"


def test_pending(port: portio.Port) -> None:
    """What was pending can be cancelled, and completes once."""
    ours, peer = socket.socketpair()
    with peer:
        key = port.associate(ours)
        receive = portio.Recv(key, bytearray(64))
        port.submit(receive)
        ours.close()
        receive.cancel()
        completion = port.get(LIMIT)
        assert completion is not None
        assert completion.operation is receive
        assert isinstance(completion.error, portio.OperationCancelledError)
        key.close()
        assert port.get(0) is None


@wine_forgets_who_sends
def test_unfinished_send(port: portio.Port) -> None:
    """The rest of a send does not go to the next owner of the number."""
    ours, peer = socket.socketpair()
    key = port.associate(ours)
    send = portio.Send(key, b"x" * (8 << 20))
    port.submit(send)
    number = ours.fileno()
    ours.close()
    other, other_peer = pair_with(number)
    with peer, other, other_peer:
        completion = None  # with an error, as soon as the rest would go to another
        peer.settimeout(0.2)  # some of it comes, or even all, or an end
        with contextlib.suppress(TimeoutError):
            while peer.recv(1 << 20):
                completion = port.get(0) or completion
        send.cancel()
        key.close()
        completion = completion or port.get(LIMIT)
        assert completion is not None
        assert completion.operation is send
        for end in (other, other_peer):
            end.setblocking(False)
            with pytest.raises(BlockingIOError):
                end.recv(64)


def test_number_used_again(port: portio.Port) -> None:
    """The new owner can be associated; each gets what is its own (K6)."""
    keys, peers = [], []
    for turn in range(20):
        ours, peer = socket.socketpair()
        keys.append(port.associate(ours, turn))
        peers.append(peer)
        port.submit(portio.Recv(keys[-1], bytearray(8)))
        if turn % 2:
            ours.close()  # its number is taken by an end of the next pair
        else:
            peer.send(b"%d" % turn)
    for key in keys[1::2]:
        key.close()
    seen: set[int] = set()
    while len(seen) < len(keys):
        completion = port.get(LIMIT)
        assert completion is not None, "a lost completion"
        assert completion.key is not None
        data = completion.key.data
        assert isinstance(data, int)
        turn = data
        assert turn not in seen
        seen.add(turn)
        if turn % 2:
            assert isinstance(completion.error, portio.OperationCancelledError)
        else:
            assert isinstance(completion.operation, portio.Recv)
            assert isinstance(completion.operation.buffer, bytearray)
            assert int(completion.operation.buffer[: completion.result()]) == turn
    for key in keys:
        key.close()
    for peer in peers:
        peer.close()


def test_collected_key(port: portio.Port) -> None:
    """A key that is being collected does not take the next owner of its number along (K6).

    The collector clears the weak references to all that it has found before it
    calls the first `__del__`; a number may change its owner in between.
    """
    ours, peer = socket.socketpair()
    number = ours.fileno()
    found: list[tuple[portio.CompletionKey, socket.socket]] = []

    class Successor:
        """Garbage that is finalized before the key is."""

        def __del__(self) -> None:
            ours.close()
            pair = pair_with(number)
            new, new_peer = pair[::-1] if pair[1].fileno() == number else pair
            found.append((port.associate(new), new_peer))

    gc.collect()
    garbage: list[object] = [Successor()]
    garbage += [garbage, port.associate(ours)]
    with peer:
        del garbage
        gc.collect()
        ((key, new_peer),) = found
        with new_peer, key:
            port.submit(portio.Recv(key, bytearray(8)))
            assert port.get(0) is None
            new_peer.send(b"hello")
            completion = port.get(LIMIT)
            assert completion is not None, "its readiness is lost"
            assert completion.result() == 5
