"""O17 pools: receives that go on, and are lent a buffer when there is data for them."""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portio
from support.drivers import Driver
from support.marks import wine_tells_only_who_waits
from support.net import STREAMS, Net, pattern, reset
from support.system import WINE
from support.taking import cancelled, take
from support.threads import Background
from support.watch import LIMIT

MakePort = Callable[..., portio.Port]


def whole_stream(
    port: portio.Port, peer: socket.socket, sent: bytes
) -> list[portio.Completion[Any]]:
    """What comes out when `sent` and the end are sent, up to the last completion."""

    def send() -> None:
        peer.sendall(sent)
        peer.shutdown(socket.SHUT_WR)

    with Background(send):
        taken = [take(port)]
        while not taken[-1].last:
            taken.append(take(port))
    return taken


def what_is_left(ours: socket.socket) -> bytes:
    """What nobody has received yet."""
    ours.setblocking(False)
    left = b""
    with contextlib.suppress(BlockingIOError):
        while piece := ours.recv(65536):
            left += piece
    return left


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o17_pieces_and_the_end(driver: Driver, net: Net, family: str) -> None:
    ours, peer = net.pair(family)
    pool = portio.BufferPool(driver.port, 2, 64)
    receive = portio.RecvMultishot(driver.associate(ours, "data"), pool)
    driver.submit(receive)
    kept = []
    for number in range(10):
        peer.sendall(b"piece %d" % number)
        done = driver.wait_for(receive)
        assert not done.last
        assert receive.pending
        assert done.key is receive.key
        assert done.key.data == "data"
        assert done.nbytes == len(done.result())
        kept.append(done.result())
    assert kept == [b"piece %d" % number for number in range(10)]  # they are ours
    driver.assert_quiet()
    peer.close()
    done = driver.wait_for(receive)
    assert done.last
    assert not receive.pending
    assert (done.nbytes, done.result(), receive.result()) == (0, b"", b"")


@pytest.mark.core
def test_o17_a_stream_that_is_longer_than_the_pool(port: portio.Port, net: Net) -> None:
    ours, peer = net.pair()
    pool = portio.BufferPool(port, 3, 1000)
    receive = portio.RecvMultishot(port.associate(ours), pool)
    port.submit(receive)
    sent = pattern(300_000)
    *pieces, end = whole_stream(port, peer, sent)
    assert all(0 < piece.nbytes <= 1000 for piece in pieces)
    assert end.result() == b""
    assert b"".join(piece.result() for piece in pieces) == sent


@pytest.mark.core
def test_o17_what_was_there_before(driver: Driver, net: Net) -> None:
    """Data, and an end, that have arrived before the operation is submitted."""
    ours, peer = net.pair()
    peer.sendall(b"early")
    peer.shutdown(socket.SHUT_WR)
    receive = portio.RecvMultishot(driver.associate(ours), portio.BufferPool(driver.port, 1, 16))
    driver.submit(receive)
    # The two may be in the hands of two threads at the same time.
    pieces = sorted(driver.take(2), key=lambda done: done.last)
    assert [(done.result(), done.last) for done in pieces] == [(b"early", False), (b"", True)]


@pytest.mark.core
def test_o17_idle_receives_need_no_buffer(driver: Driver, net: Net) -> None:
    """One buffer serves them all, as long as they take turns."""
    pool = portio.BufferPool(driver.port, 1, 64)
    pairs = [net.pair() for _ in range(30)]
    receives = [portio.RecvMultishot(driver.associate(ours), pool) for ours, _ in pairs]
    driver.submit(*receives)
    driver.assert_quiet()
    for round_ in range(3):
        for (_, peer), receive in zip(pairs, receives, strict=True):
            peer.sendall(b"%d" % round_)
            assert driver.wait_for(receive).result() == b"%d" % round_
    for receive in receives:
        driver.cancel(receive)
    assert all(cancelled(done) for done in driver.wait_for_all(receives))


@pytest.mark.core
@pytest.mark.parametrize("buffers", [1, 3])
def test_o17_exhaustion_is_waited_out(driver: Driver, net: Net, buffers: int) -> None:
    """All have data at the same time: each gets its buffer when one comes back."""
    pool = portio.BufferPool(driver.port, buffers, 8)
    pairs = [net.pair() for _ in range(20)]
    receives = [portio.RecvMultishot(driver.associate(ours), pool) for ours, _ in pairs]
    for number, (_, peer) in enumerate(pairs):
        peer.sendall(b"%08d" % number * 3)
    driver.submit(*receives)
    received = dict.fromkeys(map(id, receives), b"")
    for done in driver.take(3 * len(pairs)):
        assert not done.last
        received[id(done.operation)] += done.result()
    for number, receive in enumerate(receives):
        assert received[id(receive)] == b"%08d" % number * 3
    driver.assert_quiet()
    for receive in receives:
        driver.cancel(receive)
    assert all(cancelled(done) for done in driver.wait_for_all(receives))


@pytest.mark.core
@pytest.mark.parametrize("end", ["cancel", "key"])
def test_o17_o6_the_end_of_one_that_waits_for_a_buffer(
    port: portio.Port, net: Net, end: str
) -> None:
    """It loses no data, and takes no buffer along."""
    pool = portio.BufferPool(port, 1, 8)
    for _ in range(5):
        pairs = [net.pair() for _ in range(4)]
        receives = [portio.RecvMultishot(port.associate(ours), pool) for ours, _ in pairs]
        for _, peer in pairs:
            peer.sendall(b"12345678")
        port.submit(*receives)
        got = dict.fromkeys(map(id, receives), b"")
        for receive in receives[1:]:
            receive.cancel() if end == "cancel" else receive.key.close()
        left = len(receives) - 1
        while left:  # of the first a completion may be among them
            done = take(port)
            got[id(done.operation)] += done.result() if done.error is None else b""
            assert not done.last or cancelled(done)
            left -= done.last
        while got[id(receives[0])] != b"12345678":  # it has its buffer by now
            got[id(receives[0])] += take(port).result()
        receives[0].cancel()
        assert cancelled(take(port))
        for (ours, _), receive in zip(pairs, receives, strict=True):
            if ours.fileno() >= 0:
                assert got[id(receive)] + what_is_left(ours) == b"12345678"
        assert port.get(0) is None


@pytest.mark.core
def test_o17_p7_closing_the_port(driver: Driver, net: Net) -> None:
    """With one that waits for data, one for a buffer, and one for its taker."""
    pool = portio.BufferPool(driver.port, 1, 8)
    pairs = [net.pair() for _ in range(4)]
    receives = [portio.RecvMultishot(driver.associate(ours), pool) for ours, _ in pairs]
    driver.submit(*receives)
    for _, peer in pairs[1:]:
        peer.sendall(b"12345678" * 4)
    driver.close()
    assert not any(receive.pending for receive in receives)


@pytest.mark.core
@pytest.mark.parametrize("end", ["cancel", "stream"])
def test_o17_o9_it_has_its_turn_until_it_has_ended(port: portio.Port, net: Net, end: str) -> None:
    """A receive that is submitted meanwhile gets what comes after that."""
    ours, peer = net.pair()
    key = port.associate(ours)
    endless = portio.RecvMultishot(key, portio.BufferPool(port, 1, 4))
    singles = [portio.Recv(key, bytearray(4)) for _ in range(3)]
    port.submit(endless)
    port.submit(singles[0])
    for piece in (b"aaaa", b"bbbb", b"cccc"):
        peer.sendall(piece)
        done = take(port)
        assert (done.operation, done.result()) == (endless, piece)
        if piece == b"aaaa":
            port.submit(singles[1])
    assert port.get(0) is None
    if end == "cancel":
        endless.cancel()
        assert cancelled(take(port))
        port.submit(singles[2])
        peer.sendall(b"ddddeeeeffff")
        for single, piece in zip(singles, (b"dddd", b"eeee", b"ffff"), strict=True):
            done = take(port)
            assert (done.operation, done.result()) == (single, 4)
            assert bytes(single.buffer) == piece  # type: ignore[arg-type]
    else:
        peer.shutdown(socket.SHUT_WR)
        port.submit(singles[2])
        for operation in (endless, *singles):
            done = take(port)
            assert (done.operation, done.last, done.nbytes) == (operation, True, 0)


@pytest.mark.core
@pytest.mark.parametrize("end", ["cancel", "key"])
def test_o17_o9_one_that_waits_behind_it(port: portio.Port, net: Net, end: str) -> None:
    """It is cancelled by itself, or with the handle."""
    ours, peer = net.pair()
    key = port.associate(ours)
    endless = portio.RecvMultishot(key, portio.BufferPool(port, 1, 4))
    single = portio.Recv(key, bytearray(4))
    peer.sendall(b"aaaa")
    port.submit(endless)
    assert take(port).result() == b"aaaa"
    port.submit(single)
    single.cancel() if end == "cancel" else key.close()
    done = take(port)
    assert cancelled(done)
    if end == "key":
        assert {done.operation, take(port).operation} == {single, endless}
        return
    assert done.operation is single
    peer.sendall(b"bbbb")
    assert take(port).result() == b"bbbb"
    endless.cancel()
    assert cancelled(take(port))


@pytest.mark.core
def test_o17_o10_a_reset_is_the_last(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    pool = portio.BufferPool(driver.port, 1, 64)
    receive = portio.RecvMultishot(driver.associate(ours), pool)
    driver.submit(receive)
    peer.sendall(b"x")
    assert driver.wait_for(receive).result() == b"x"
    reset(peer)
    done = driver.wait_for(receive)
    assert done.last
    assert isinstance(done.error, ConnectionResetError)
    other, peer = net.pair()  # the buffer has come back
    receive = portio.RecvMultishot(driver.associate(other), pool)
    driver.submit(receive)
    peer.sendall(b"y")
    assert driver.wait_for(receive).result() == b"y"
    driver.cancel(receive)
    assert cancelled(driver.wait_for(receive))


@pytest.mark.core
@wine_tells_only_who_waits
def test_o17_o10_an_error_takes_no_buffer_along(port: portio.Port, net: Net) -> None:
    """The one that waits for the buffer has a reset to tell, and not a byte."""
    pool = portio.BufferPool(port, 1, 4)
    (ours, peer), (lost, lost_peer) = net.pair(), net.pair()
    receive, failing = (portio.RecvMultishot(port.associate(end), pool) for end in (ours, lost))
    reset(lost_peer)
    peer.sendall(b"12345678")
    port.submit(receive, failing)
    received, errors = b"", []
    for _ in range(3):
        done = take(port)
        if done.operation is failing:
            errors.append(type(done.error))
        else:
            received += done.result()
    assert (received, errors) == (b"12345678", [ConnectionResetError])
    peer.sendall(b"more")
    assert take(port).result() == b"more"
    receive.cancel()
    assert cancelled(take(port))


def test_o17_o7_our_own_end_of_receiving(driver: Driver, net: Net) -> None:
    ours, _ = net.pair()
    key = driver.associate(ours)
    receive = portio.RecvMultishot(key, portio.BufferPool(driver.port, 1, 64))
    driver.submit(receive)
    shutdown = portio.Shutdown(key, socket.SHUT_RD)
    driver.submit(shutdown)
    done = driver.wait_for(receive)
    assert done.last
    assert done.result() == b""
    assert driver.wait_for(shutdown).error is None


def test_o17_o6_races_with_data(port: portio.Port, net: Net) -> None:
    """What was received arrives, and what was not is still there."""
    pool = portio.BufferPool(port, 1, 4)
    ours, peer = net.pair()
    receive = portio.RecvMultishot(port.associate(ours), pool)
    received = b""
    sent = b""
    for number in range(60):
        port.submit(receive)
        piece = b"%03d" % number
        sent += piece
        with Background(peer.sendall, piece):
            receive.cancel()
            while not (done := take(port)).last:
                received += done.result()
            assert cancelled(done)
    peer.shutdown(socket.SHUT_WR)
    port.submit(receive)
    while not (done := take(port)).last:
        received += done.result()
    assert done.error is None
    assert received == sent


@pytest.mark.core
@pytest.mark.parametrize("buffers", [3, 5, 12])
def test_o17_numbers_of_buffers(driver: Driver, net: Net, buffers: int) -> None:
    """All of them at the same time, and each more than once."""
    pool = portio.BufferPool(driver.port, buffers, 16)
    pairs = [net.pair() for _ in range(buffers + 2)]
    receives = [portio.RecvMultishot(driver.associate(ours), pool) for ours, _ in pairs]
    driver.submit(*receives)
    for round_ in range(4):
        for number, (_, peer) in enumerate(pairs):
            peer.sendall(b"%d of %d" % (number, round_))
        for number, receive in enumerate(receives):
            assert driver.wait_for(receive).result() == b"%d of %d" % (number, round_)
    for receive in receives:
        driver.cancel(receive)
    assert all(cancelled(done) for done in driver.wait_for_all(receives))


@pytest.mark.core
def test_o17_more_pieces_than_16_bits_count(port: portio.Port, net: Net) -> None:
    ours, peer = net.pair()
    receive = portio.RecvMultishot(port.associate(ours), portio.BufferPool(port, 3, 1))
    sent = pattern(6_600 if WINE else 66_000)  # where none has 16 bits, and each takes a while
    port.submit(receive)
    *pieces, _ = whole_stream(port, peer, sent)
    assert b"".join(piece.result() for piece in pieces) == sent


@pytest.mark.core
def test_o17_pools_side_by_side(driver: Driver, net: Net) -> None:
    """Each receive gets buffers of its own pool, whose neighbours do not change."""
    pools = [portio.BufferPool(driver.port, count, size) for count, size in ((1, 3), (4, 5))]
    pairs = [net.pair() for _ in range(6)]
    receives = [
        portio.RecvMultishot(driver.associate(ours), pools[number % 2])
        for number, (ours, _) in enumerate(pairs)
    ]
    for number, (_, peer) in enumerate(pairs):
        peer.sendall(b"%d" % number * 15)
    driver.submit(*receives)
    received = dict.fromkeys(map(id, receives), b"")
    for done in driver.take(3 * 5 + 3 * 3):
        assert done.nbytes == done.operation.pool.size
        received[id(done.operation)] += done.result()
    for number, receive in enumerate(receives):
        assert received[id(receive)] == b"%d" % number * 15
        driver.cancel(receive)
    assert all(cancelled(done) for done in driver.wait_for_all(receives))


@pytest.mark.core
def test_o17_pools_come_and_go(port: portio.Port, net: Net) -> None:
    """A pool may end while the port lives, in any thread, and others take its place."""
    pairs = [net.pair() for _ in range(3)]
    keys = [port.associate(ours) for ours, _ in pairs]
    lasting = portio.RecvMultishot(keys[0], portio.BufferPool(port, 2, 8))
    port.submit(lasting)
    for round_ in range(60):
        first = portio.RecvMultishot(keys[1], portio.BufferPool(port, 1 + round_ % 5, 8))
        second = portio.RecvMultishot(keys[2], portio.BufferPool(port, 3, 8))
        port.submit(first, second)
        for operation, (_, peer) in zip((lasting, first, second), pairs, strict=True):
            peer.sendall(b"%d" % round_)
            done = take(port)
            assert (done.operation, done.result()) == (operation, b"%d" % round_)
        for operation in (first, second):
            operation.cancel()
            assert cancelled(take(port))
        del done, operation, second
        held = [first]
        del first
        with Background(held.clear):  # one of them ends there
            pass
    lasting.cancel()
    assert cancelled(take(port))


@pytest.mark.core
def test_o17_o6_no_buffer_is_lost_in_a_race(port: portio.Port, net: Net) -> None:
    """There is one, and each round needs it."""
    pool = portio.BufferPool(port, 1, 4)
    (ours, peer), (other, other_peer) = net.pair(), net.pair()
    receive = portio.RecvMultishot(port.associate(ours), pool)
    witness = portio.RecvMultishot(port.associate(other), pool)
    port.submit(witness)
    received, sent, seen = b"", b"", b""
    for number in range(60):
        port.submit(receive)
        sent += b"%03d" % number
        with Background(peer.sendall, b"%03d" % number):
            if number % 3 == 0:
                other_peer.sendall(b"w")
            receive.cancel()
            while not ((done := take(port)).operation is receive and done.last):
                if done.operation is witness:
                    seen += done.result()
                else:
                    received += done.result()
            assert cancelled(done)
        if number % 3:
            other_peer.sendall(b"w")
        while len(seen) < number + 1:
            done = take(port)
            assert done.operation is witness
            seen += done.result()
    witness.cancel()
    assert cancelled(take(port))
    assert received + what_is_left(ours) == sent


def look_at_the_system(port: portio.Port) -> None:
    """What has arrived is received, and not taken: posted packets are before it."""
    with contextlib.suppress(portio.NotSupportedError):
        port.fileno()  # from now on packets are fetched one by one
    for _ in range(40):  # every 32nd asks the system
        port.post()
        assert take(port).operation is None


@pytest.mark.core
@pytest.mark.parametrize("end", ["cancel", "key", "stream"])
def test_o17_the_end_comes_after_what_was_received(port: portio.Port, net: Net, end: str) -> None:
    """The system may have received more than one piece before the first was taken."""
    ours, peer = net.pair()
    receive = portio.RecvMultishot(port.associate(ours), portio.BufferPool(port, 8, 4))
    for _ in range(60):
        port.post()  # before its first packet
    port.submit(receive)
    peer.sendall(b"aaaabbbbccccdddd")
    look_at_the_system(port)
    if end == "cancel":
        receive.cancel()
    elif end == "key":
        receive.key.close()
        with contextlib.suppress(ConnectionResetError):  # not all of it may have been received
            assert peer.recv(1) == b""
    else:
        peer.shutdown(socket.SHUT_WR)
    received = b""
    while not (done := take(port)).last or done.operation is not receive:
        received += done.result() or b""
    if end == "stream":
        assert done.result() == b""
        assert received == b"aaaabbbbccccdddd"
    else:
        assert cancelled(done)
        assert b"aaaabbbbccccdddd".startswith(received)
        if end == "cancel":
            assert received + what_is_left(ours) == b"aaaabbbbccccdddd"


@pytest.mark.core
def test_o17_k5_the_peer_sees_the_end_at_once(port: portio.Port, net: Net) -> None:
    """Also when the operation has a completion that nobody has taken yet."""
    ours, peer = net.pair()
    receive = portio.RecvMultishot(port.associate(ours), portio.BufferPool(port, 8, 4))
    for _ in range(60):
        port.post()
    port.submit(receive)
    peer.sendall(b"aaaa")
    look_at_the_system(port)
    receive.key.close()
    peer.settimeout(LIMIT)
    assert peer.recv(1) == b""
    received = b""
    while not (done := take(port)).last or done.operation is not receive:
        received += done.result() or b""
    assert cancelled(done)
    # Windows' port has shown that there is something, but not to whom, behind what was posted.
    assert received == b"aaaa" or (port.backend == "iocp" and received == b"")


@pytest.mark.core
def test_o17_p7_a_closed_port_receives_no_more(port: portio.Port, net: Net) -> None:
    """Not either for an operation with a completion that nobody has taken."""
    pool = portio.BufferPool(port, 8, 4)
    pairs = [net.pair() for _ in range(3)]
    receives = [portio.RecvMultishot(port.associate(ours), pool) for ours, _ in pairs]
    for _ in range(60):
        port.post()
    port.submit(*receives)
    for _, peer in pairs:
        peer.sendall(b"aaaa")
    look_at_the_system(port)
    port.close()
    for ours, peer in pairs:
        peer.sendall(b"later")
        left = what_is_left(ours)
        assert left == b"later" or (port.backend == "iocp" and left == b"aaaalater")


@pytest.mark.core
def test_o17_one_that_is_flooded_leaves_something_to_the_others(
    port: portio.Port, net: Net
) -> None:
    pool = portio.BufferPool(port, 4, 4)
    (flooded, flood), *others = [net.pair() for _ in range(4)]
    busy = portio.RecvMultishot(port.associate(flooded), pool)
    quiet = [portio.RecvMultishot(port.associate(ours), pool) for ours, _ in others]
    port.submit(busy, *quiet)
    flood.sendall(b"1234" * 400)
    for _ in range(20):
        assert take(port).operation is busy
    for _, peer in others:
        peer.sendall(b"once")
    waiting = {*quiet}
    for _ in range(32 + 20):  # every 32nd asks the system
        waiting.discard(take(port).operation)  # type: ignore[arg-type]
    assert not waiting
    for receive in (busy, *quiet):
        receive.cancel()
    left = 4
    while left:
        left -= take(port).last


@pytest.mark.core
def test_o17_threads_that_end(shared_port: portio.Port, net: Net) -> None:
    """Each begins a turn, and leaves the rest to others."""
    ours, peer = net.pair()
    receive = portio.RecvMultishot(
        shared_port.associate(ours), portio.BufferPool(shared_port, 4, 8)
    )
    Background(shared_port.submit, receive).result()
    for number in range(20):
        if number % 2:
            peer.sendall(b"%d" % number)
        begin = Background(take, shared_port)
        if not number % 2:
            peer.sendall(b"%d" % number)
        assert begin.result().result() == b"%d" % number
    receive.cancel()
    assert cancelled(take(shared_port))


@pytest.mark.core
def test_o17_p7_a_pool_after_its_port(driver: Driver, net: Net) -> None:
    """Its receive is pending when the port closes; the pool ends later."""
    pool = portio.BufferPool(driver.port, 3, 64)
    ours, _ = net.pair()
    receive = portio.RecvMultishot(driver.associate(ours), pool)
    driver.submit(receive)
    driver.close()
    assert not receive.pending
    del receive, pool
    gc.collect()


@pytest.mark.core
def test_o17_p9_the_owner_has_ended(backend: str, net: Net) -> None:
    """Somebody else closes its port, with a receive that waits and one that was lent a buffer."""
    (idle, _), (busy, peer) = net.pair(), net.pair()
    peer.sendall(b"12345678")
    ports: list[portio.Port] = []
    receives: list[portio.RecvMultishot] = []

    def own() -> None:
        port = portio.Port(backend=backend, thread_bound=True)
        ports.append(port)
        pool = portio.BufferPool(port, 2, 4)
        receives.extend(portio.RecvMultishot(port.associate(ours), pool) for ours in (idle, busy))
        port.submit(*receives)
        assert take(port).result() == b"1234"

    Background(own).result()
    ports.pop().close()
    assert not any(receive.pending for receive in receives)
    receives.clear()
    gc.collect()


def test_o17_o2_misuse(driver: Driver, net: Net, backend: str, tmp_path: Path) -> None:
    ours, _ = net.pair()
    key = driver.associate(ours)
    pool = portio.BufferPool(driver.port, 1, 16)
    assert (pool.count, pool.size, pool.port) == (1, 16, driver.port)
    receive = portio.RecvMultishot(key, pool)
    with pytest.raises(ValueError, match=r"portio\.RecvMultishot.*multishot"):
        driver.submit(receive, queued=False)
    with pytest.raises(ValueError, match=r"portio\.RecvMultishot.*multishot"):
        driver.call(driver.port.submit, receive, quiet=True)
    wrong: Any
    for wrong in (bytearray(16), None, 16):
        with pytest.raises(TypeError, match="BufferPool"):
            driver.submit(portio.RecvMultishot(key, wrong))
    with portio.Port(backend=backend) as other, pytest.raises(ValueError, match="another port"):
        driver.submit(portio.RecvMultishot(key, portio.BufferPool(other, 1, 1)))
    with pytest.raises(portio.PortClosedError):
        portio.BufferPool(other, 1, 1)
    datagram = driver.associate(net.datagram())
    with portio.open(tmp_path / "file", "w+") as file:
        for no_stream in (datagram, driver.associate(file)):
            with pytest.raises(TypeError, match="stream socket"):
                driver.submit(portio.RecvMultishot(no_stream, pool))
    for count, size in ((0, 1), (1, 0), (-1, 1), (1, -1), (1 << 21, 1), (1, 1 << 31)):
        with pytest.raises(ValueError, match="must be from 1 to"):
            portio.BufferPool(driver.port, count, size)
    for count, size in (("1", 1), (1, 1.0)):
        with pytest.raises(TypeError):
            portio.BufferPool(driver.port, count, size)  # type: ignore[arg-type]
    assert not receive.pending
    driver.submit(receive)
    with pytest.raises(RuntimeError, match="pending"):
        driver.submit(receive)
    driver.cancel(receive)
    assert cancelled(driver.wait_for(receive))


def test_o17_o3_a_pool_that_the_program_drops(driver: Driver, net: Net) -> None:
    """The operation keeps it."""
    ours, peer = net.pair()
    receive = portio.RecvMultishot(driver.associate(ours), portio.BufferPool(driver.port, 4, 65536))
    driver.submit(receive)
    receive.pool = portio.BufferPool(driver.port, 1, 1)
    for _ in range(5):
        peer.sendall(b"0123456789")
        assert driver.wait_for(receive).result() == b"0123456789"
    driver.cancel(receive)
    assert cancelled(driver.wait_for(receive))
