"""O7 end of file, O8 whole transfers, O9 stream order, on sockets."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import portio
from support.children import run_script
from support.drivers import Driver
from support.marks import needs_posix_signals, wine_forgets_who_sends
from support.net import STREAMS, Net, pattern, recv_all, recv_exactly, reset
from support.system import LOCAL, WINE
from support.threads import Background
from support.watch import LIMIT, eventually

# O7 end of file


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o7_the_end_of_a_stream(driver: Driver, net: Net, family: str) -> None:
    ours, peer = net.pair(family)
    key = driver.associate(ours)
    peer.sendall(b"last")
    peer.close()
    buffer = bytearray(16)
    assert driver.result(portio.Recv(key, buffer)) == 4
    for _ in range(3):  # again and again
        done = driver.run(portio.Recv(key, buffer))
        assert done.error is None
        assert done.result() == 0


@pytest.mark.core
@pytest.mark.parametrize("how", ["close", "shutdown"])
def test_o7_the_end_comes_while_receives_are_pending(driver: Driver, net: Net, how: str) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    receives = [portio.Recv(key, bytearray(8)) for _ in range(4)]
    driver.submit(*receives)
    peer.sendall(b"x")
    peer.close() if how == "close" else peer.shutdown(socket.SHUT_WR)
    assert [done.result() for done in driver.wait_for_all(receives)] == [1, 0, 0, 0]


def test_o7_sending_still_works_after_the_end(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    peer.shutdown(socket.SHUT_WR)
    assert driver.result(portio.Recv(key, bytearray(8))) == 0
    assert driver.result(portio.Send(key, b"half open")) == 9
    assert recv_exactly(peer, 9) == b"half open"


def test_o7_our_own_shutdown_of_receiving(driver: Driver, net: Net) -> None:
    ours, _ = net.pair()
    key = driver.associate(ours)
    driver.submit(receive := portio.Recv(key, bytearray(8)))
    driver.submit(portio.Shutdown(key, socket.SHUT_RD))
    assert driver.wait_for(receive).result() == 0
    driver.take()


def test_o7_a_reset_is_no_end(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    receive = portio.Recv(key, bytearray(8))
    if WINE:  # which tells of a reset only those who were waiting
        driver.submit(receive)
    reset(peer)
    if not WINE:
        driver.submit(receive)
    assert isinstance(driver.wait_for(receive).error, ConnectionResetError)


def test_o7_vectored(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    peer.close()
    assert driver.result(portio.Recv(key, [bytearray(4), bytearray(4)])) == 0


# O8 whole transfers


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o8_a_send_completes_when_every_byte_is_handed_over(
    driver: Driver, net: Net, family: str
) -> None:
    """Tens of megabytes to a reader that takes its time and small bites."""
    ours, peer = net.pair(family)
    key = driver.associate(ours)
    data = pattern(24 << 20)
    go = threading.Event()

    def read() -> bytes:
        first = recv_exactly(peer, 1)
        assert go.wait(LIMIT)
        return first + recv_exactly(peer, len(data) - 1)

    with Background(read) as reader:
        driver.submit(send := portio.Send(key, data))
        driver.assert_quiet()  # nobody reads: it cannot be complete, also not in part
        assert send.pending
        go.set()
        done = driver.wait_for(send)
        assert done.error is None
        assert done.nbytes == done.result() == len(data)
        assert reader.result() == data


@pytest.mark.core
def test_o8_a_vectored_send_in_pieces_of_every_size(driver: Driver, net: Net) -> None:
    """The system stops in the middle of a piece, and the engine goes on from there."""
    ours, peer = net.small_pair()
    data = pattern(3 << 20)
    pieces, start = [], 0
    while start < len(data):
        size = 1 + (start * 7919) % 70_001
        pieces.append(data[start : start + size])
        start += size
    driver.submit(send := portio.Send(driver.associate(ours), pieces))
    with Background(recv_exactly, peer, len(data)) as reader:
        assert driver.wait_for(send).result() == len(data)
        assert reader.result() == data


@wine_forgets_who_sends
@pytest.mark.core
def test_o8_an_error_says_how_many_bytes_went(driver: Driver, net: Net) -> None:
    ours, peer = net.small_pair(LOCAL)
    key = driver.associate(ours)
    driver.submit(send := portio.Send(key, bytes(32 << 20)))

    def read_and_turn_away() -> int:
        got = len(recv_exactly(peer, 1 << 20))
        peer.close()
        return got

    with Background(read_and_turn_away) as reader:
        done = driver.wait_for(send)
        assert isinstance(done.error, (BrokenPipeError, ConnectionResetError))
        assert reader.result() <= done.nbytes < 32 << 20


def test_o8_a_send_after_the_peer_is_gone(driver: Driver, net: Net) -> None:
    """An error with the completion; and no SIGPIPE ends the process."""
    ours, peer = net.pair(LOCAL)
    peer.close()
    key = driver.associate(ours)
    done = driver.run(portio.Send(key, b"x"))
    if LOCAL == "inet":  # TCP hears of it by the answer to what it has sent
        deadline = time.monotonic() + LIMIT
        while done.error is None and time.monotonic() < deadline:
            done = driver.run(portio.Send(key, b"x"))
        assert isinstance(done.error, BrokenPipeError | ConnectionResetError)
    else:
        assert isinstance(done.error, BrokenPipeError)
    assert done.nbytes == 0


@needs_posix_signals
def test_o8_no_sigpipe_even_where_it_would_kill(backend: str) -> None:
    script = """
        import os, signal, socket, sys, portio
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        port = portio.Port(backend=sys.argv[1])
        ours, peer = socket.socketpair()
        peer.close()
        key = port.associate(ours)
        port.submit(portio.Send(key, b"x"), portio.Send(key, [b"x", b"y"]))
        for _ in range(2):
            assert isinstance(port.get(30).error, BrokenPipeError)
        with open(__import__("portio").__file__, "rb") as source:
            port.submit(portio.SendFile(key, source))
            assert isinstance(port.get(30).error, BrokenPipeError)
        port.close()
        print("alive")
    """
    assert run_script(script, backend) == "alive\n"


@pytest.mark.core
def test_o8_a_receive_returns_what_there_is(driver: Driver, net: Net) -> None:
    """At least one byte, and without waiting for the buffer to be full."""
    ours, peer = net.pair()
    key = driver.associate(ours)
    driver.submit(receive := portio.Recv(key, bytearray(1 << 16)))
    peer.sendall(b"three")
    assert driver.wait_for(receive).result() == 5
    peer.sendall(b"123456789")
    assert driver.result(portio.Recv(key, bytearray(4))) == 4
    assert driver.result(portio.Recv(key, bytearray(64))) == 5


def test_o8_msg_waitall_waits_for_all(driver: Driver, net: Net) -> None:
    """Flags reach the system: with this one a receive is as whole as a send."""
    ours, peer = net.pair()
    receive = portio.Recv(driver.associate(ours), bytearray(10), socket.MSG_WAITALL)
    driver.submit(receive)
    peer.sendall(b"01234")
    driver.assert_quiet()
    peer.sendall(b"56789")
    count = driver.wait_for(receive).result()
    assert receive.buffer[:count] == b"0123456789"[:count]
    assert count in (5, 10)  # a system may take what it finds, but no other part


# O9 stream order


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o9_many_sends_pending_on_one_stream(driver: Driver, net: Net, family: str) -> None:
    """Two sends in flight must not interleave, whatever their sizes and shapes."""
    ours, peer = net.small_pair(family)
    key = driver.associate(ours)
    data = pattern(6 << 20)
    sends, start = [], 0
    while start < len(data):
        size = 1 + (start * 104_729) % 150_001
        piece = data[start : start + size]
        half = len(piece) // 2
        buffer: Any = piece if len(sends) % 2 else [piece[:half], piece[half:]]
        sends.append(portio.Send(key, buffer))
        start += size
    with Background(recv_exactly, peer, len(data)) as reader:
        for batch in range(0, len(sends), 5):
            driver.submit(*sends[batch : batch + 5])
        for done in driver.wait_for_all(sends):
            assert done.error is None
        assert reader.result() == data


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o9_many_receives_pending_on_one_stream(driver: Driver, net: Net, family: str) -> None:
    ours, peer = net.pair(family)
    key = driver.associate(ours)
    data = pattern(1 << 20)
    received = bytearray()
    with Background(peer.sendall, data):
        while len(received) < len(data):
            receives = [portio.Recv(key, bytearray(1 + n * 331)) for n in range(40)]
            driver.submit(*receives)
            # The last batch is longer than the data: what is left over is cancelled.
            for receive in receives:
                if len(received) == len(data):
                    driver.cancel(receive)
                    assert driver.wait_for(receive).error is not None
                else:
                    done = driver.wait_for(receive)
                    assert done.result() >= 1
                    received += receive.buffer[: done.nbytes]
    assert received == data


def test_o9_receives_and_sends_do_not_wait_for_each_other(driver: Driver, net: Net) -> None:
    """The directions of a stream are two: a pending receive does not hold up a send."""
    ours, peer = net.pair()
    key = driver.associate(ours)
    driver.submit(receive := portio.Recv(key, bytearray(4)))
    assert driver.result(portio.Send(key, b"out")) == 3
    assert recv_exactly(peer, 3) == b"out"
    assert receive.pending
    peer.sendall(b"in")
    assert driver.wait_for(receive).result() == 2


def test_o9_an_echo_in_both_directions_at_once(driver: Driver, net: Net) -> None:
    ours, peer = net.small_pair(LOCAL)
    key = driver.associate(ours)
    data = pattern(1 << 20)
    received = bytearray()
    sends = [portio.Send(key, data[n : n + 65536]) for n in range(0, len(data), 65536)]

    def echo() -> None:
        left = len(data)
        while left:
            chunk = peer.recv(32768)
            peer.sendall(chunk)
            left -= len(chunk)

    with Background(echo):
        driver.submit(*sends)
        while len(received) < len(data):
            receive = portio.Recv(key, bytearray(40_000))
            received += receive.buffer[: driver.result(receive)]
        for done in driver.wait_for_all(sends):
            done.result()
    assert received == data


@pytest.mark.core
def test_o9_a_shutdown_comes_after_the_sends_before_it(driver: Driver, net: Net) -> None:
    ours, peer = net.small_pair()
    key = driver.associate(ours)
    data = pattern(1 << 20)
    sends = [portio.Send(key, data[n : n + 100_000]) for n in range(0, len(data), 100_000)]
    end = portio.Shutdown(key)
    driver.submit(*sends, end)
    with Background(recv_all, peer) as reader:
        for done in driver.wait_for_all([*sends, end]):
            assert done.error is None
        assert reader.result() == data


def test_o9_sends_and_files_keep_their_order(driver: Driver, net: Net, tmp_path: Path) -> None:
    """Header, file, trailer: the everyday use of SendFile."""
    body = pattern(700_000)
    (tmp_path / "body").write_bytes(body)
    ours, peer = net.small_pair()
    key = driver.associate(ours)
    with portio.open(tmp_path / "body") as source:
        operations: list[portio.Operation[Any]] = []
        for _ in range(3):
            operations += [
                portio.Send(key, b"<header>"),
                portio.SendFile(key, source),
                portio.Send(key, [b"<", b"trailer", b">"]),
            ]
        operations.append(portio.Shutdown(key))
        driver.submit(*operations)
        with Background(recv_all, peer) as reader:
            for done in driver.wait_for_all(operations):
                assert done.error is None
            assert reader.result() == (b"<header>" + body + b"<trailer>") * 3


def test_o9_a_send_behind_a_connect(driver: Driver, net: Net) -> None:
    """What is sent before the connection stands goes out when it does."""
    listener = net.listener()
    key = driver.associate(net.socket())
    connect = portio.Connect(key, listener.getsockname())
    send, end = portio.Send(key, b"early bird"), portio.Shutdown(key)
    driver.submit(connect, send, end)
    listener.settimeout(LIMIT)
    peer, _ = listener.accept()
    net.own(peer).settimeout(LIMIT)
    for done in driver.wait_for_all([connect, send, end]):
        assert done.error is None
    assert recv_all(peer) == b"early bird"


@wine_forgets_who_sends
def test_o9_an_error_does_not_hold_up_what_follows(driver: Driver, net: Net) -> None:
    ours, peer = net.small_pair(LOCAL)
    key = driver.associate(ours)
    sends = [portio.Send(key, bytes(1 << 20)) for _ in range(10)]
    driver.submit(*sends)
    peer.close()
    for done in driver.wait_for_all(sends):
        assert isinstance(done.error, (BrokenPipeError, ConnectionResetError))


def test_o9_submitted_from_several_threads(driver: Driver, net: Net) -> None:
    """Each send goes out whole, and each thread's sends in its order."""
    if driver.port.thread_bound or driver.name == "trio":
        pytest.skip("of such a port only the owner, or the run's thread, starts operations")
    ours, peer = net.small_pair(LOCAL)
    key = driver.associate(ours)
    size, each, threads = 997, 100, 4

    def submit(sender: int) -> None:
        for number in range(each):
            driver.submit(portio.Send(key, b"%c%02d" % (65 + sender, number) + b"." * (size - 3)))

    with Background(recv_exactly, peer, size * each * threads) as reader:
        for thread in [Background(submit, sender) for sender in range(threads)]:
            thread.result()
        for done in driver.take(each * threads):
            assert done.result() == size
        data = reader.result()
    records = [data[start : start + size] for start in range(0, len(data), size)]
    assert all(record[3:] == b"." * (size - 3) for record in records)
    for sender in range(threads):
        mine = [int(record[1:3]) for record in records if record[0] == 65 + sender]
        assert mine == list(range(each))


def test_o9_slow_streams_do_not_hold_up_others(driver: Driver, net: Net) -> None:
    stuck, _ = net.small_pair()
    stuck_key = driver.associate(stuck)
    sends = [portio.Send(stuck_key, bytes(1 << 20)) for _ in range(3)]
    driver.submit(*sends)
    ours, peer = net.pair()
    key = driver.associate(ours)
    for _ in range(50):
        assert driver.result(portio.Send(key, b"fluent")) == 6
        assert recv_exactly(peer, 6) == b"fluent"
    assert all(send.pending for send in sends)


def test_o8_the_reader_sees_data_while_the_send_is_pending(driver: Driver, net: Net) -> None:
    """A long send is under way, not collected first; with a pool, without our help."""
    ours, peer = net.small_pair()
    driver.submit(send := portio.Send(driver.associate(ours), bytes(8 << 20)))
    assert recv_exactly(peer, 1) == b"\0"
    assert send.pending
    rest = Background(recv_exactly, peer, (8 << 20) - 1)
    assert driver.wait_for(send).result() == 8 << 20
    eventually(lambda: not rest.is_alive(), "the reader has everything")
    assert len(rest.result()) == (8 << 20) - 1
