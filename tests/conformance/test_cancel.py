"""O6 cancel: a request, of which the operation makes exactly one outcome."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portio
from support import handles
from support.drivers import Driver
from support.marks import wine_forgets_what_was_sent
from support.net import STREAMS, Net, fill, pattern, recv_count, recv_exactly, reset
from support.system import LOCAL, WINE
from support.threads import Background
from support.watch import LIMIT

MakePort = Callable[..., portio.Port]


def cancelled(done: portio.Completion[Any]) -> bool:
    """Was it cancelled, and does everything about it say so?"""
    if done.error is None:
        return False
    assert type(done.error) is portio.OperationCancelledError, done
    assert done.error.errno == errno.ECANCELED
    with pytest.raises(portio.OperationCancelledError):
        done.result()
    return True


def cancel_and_wait(driver: Driver, operation: portio.Operation[Any]) -> portio.Completion[Any]:
    driver.cancel(operation)
    return driver.wait_for(operation)


def test_o6_the_error_is_not_one_of_a_connection() -> None:
    assert issubclass(portio.OperationCancelledError, OSError)
    assert not issubclass(portio.OperationCancelledError, ConnectionError)
    assert not issubclass(portio.OperationCancelledError, portio.PortClosedError)


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o6_a_receive_and_the_data_after_it(driver: Driver, net: Net, family: str) -> None:
    ours, peer = net.pair(family)
    key = driver.associate(ours)
    driver.submit(receive := portio.Recv(key, bytearray(8)))
    assert cancelled(cancel_and_wait(driver, receive))
    assert not receive.pending
    peer.sendall(b"nothing is lost")
    buffer = bytearray(32)
    assert driver.result(portio.Recv(key, buffer)) == 15
    assert buffer[:15] == b"nothing is lost"


@pytest.mark.core
def test_o6_one_of_many_on_the_same_stream(driver: Driver, net: Net) -> None:
    """Only that one; the others keep their order."""
    ours, peer = net.pair()
    key = driver.associate(ours)
    receives = [portio.Recv(key, bytearray(1)) for _ in range(5)]
    driver.submit(*receives)
    assert cancelled(cancel_and_wait(driver, receives[2]))
    assert cancelled(cancel_and_wait(driver, receives[0]))
    peer.sendall(b"abc")
    for receive, expected in zip([receives[1], receives[3], receives[4]], b"abc", strict=True):
        assert driver.wait_for(receive).result() == 1
        assert receive.buffer[0] == expected


def test_o6_an_accept_and_the_client_after_it(driver: Driver, net: Net) -> None:
    listener = net.listener()
    key = driver.associate(listener)
    driver.submit(accept := portio.Accept(key))
    assert cancelled(cancel_and_wait(driver, accept))
    client = net.client(listener)
    accepted = net.own(driver.result(portio.Accept(key)))
    accepted.sendall(b"welcome")
    assert client.recv(16) == b"welcome"


def test_o6_a_connect(driver: Driver, net: Net) -> None:
    key = driver.associate(net.socket())
    driver.submit(connect := portio.Connect(key, net.full_listener().getsockname()))
    driver.assert_quiet()
    assert connect.pending
    assert cancelled(cancel_and_wait(driver, connect))


@wine_forgets_what_was_sent
@pytest.mark.core
def test_o6_a_send_says_how_much_went(driver: Driver, net: Net) -> None:
    ours, peer = net.small_pair()
    key = driver.associate(ours)
    data = pattern(4 << 20)
    driver.submit(send := portio.Send(key, data))
    done = cancel_and_wait(driver, send)
    assert cancelled(done)
    assert 0 <= done.nbytes < len(data)
    driver.submit(end := portio.Shutdown(key))
    with Background(recv_count, peer) as reader:
        driver.wait_for(end).result()
        assert reader.result() == done.nbytes


def test_o6_a_send_that_waits_behind_another(driver: Driver, net: Net) -> None:
    """It has not begun, so nothing of it is sent; the one before is untouched."""
    ours, peer = net.small_pair()
    key = driver.associate(ours)
    first = portio.Send(key, b"1" * 1_000_000)
    second = portio.Send(key, b"2" * 1_000_000)
    third = portio.Send(key, b"3" * 10)
    driver.submit(first, second, third)
    done = cancel_and_wait(driver, second)
    assert cancelled(done)
    assert done.nbytes == 0
    with Background(recv_exactly, peer, 1_000_010) as reader:
        assert driver.wait_for(first).result() == 1_000_000
        assert driver.wait_for(third).result() == 10
        assert reader.result() == b"1" * 1_000_000 + b"3" * 10


def test_o6_datagrams(driver: Driver, net: Net) -> None:
    ours, peer = net.datagram(), net.datagram()
    key = driver.associate(ours)
    for kind in (portio.RecvFrom, portio.Recv):
        driver.submit(receive := kind(key, bytearray(16)))
        assert cancelled(cancel_and_wait(driver, receive))
        peer.sendto(b"next", ours.getsockname())
        done = driver.run(kind(key, bytearray(16)))
        assert done.error is None
        assert done.nbytes == 4


def test_o6_a_datagram_that_finds_no_room(driver: Driver, net: Net) -> None:
    """Connected Unix datagram sockets wait for their reader; what waits can be cancelled."""
    ours, peer = net.datagram("unix"), net.datagram("unix")
    key = driver.associate(ours)
    driver.result(portio.Connect(key, peer.getsockname()))
    sends = [portio.Send(key, b"%04d" % number) for number in range(2000)]
    driver.submit(*sends)
    driver.cancel(sends[-1])
    assert cancelled(driver.wait_for(sends[-1]))
    for send in sends[:-1]:
        driver.cancel(send)
    outcomes = [cancelled(done) for done in driver.wait_for_all(sends[:-1])]
    sent = [b"%04d" % number for number, gone in enumerate(outcomes) if not gone]
    assert 0 < len(sent) < 1999
    assert sorted(peer.recv(8) for _ in sent) == sent
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(8)


@pytest.mark.core
def test_o6_timers(driver: Driver) -> None:
    timers = [portio.Timer(1000 + number) for number in range(10)]
    driver.submit(*timers)
    for timer in timers[::2]:
        assert cancelled(cancel_and_wait(driver, timer))
    for timer in timers[1::2]:
        assert timer.pending
        assert cancelled(cancel_and_wait(driver, timer))


@pytest.mark.core
def test_o6_pipes_in_both_directions(driver: Driver) -> None:
    reader, writer = portio.pipe()
    with reader, writer:
        read_key, write_key = driver.associate(reader), driver.associate(writer)
        driver.submit(read := portio.Read(read_key, bytearray(8)))
        assert cancelled(cancel_and_wait(driver, read))
        data = pattern(1 << 20)
        driver.submit(write := portio.Write(write_key, data))
        done = cancel_and_wait(driver, write)
        assert cancelled(done)
        received = bytearray()
        while len(received) < done.nbytes:
            buffer = bytearray(1 << 16)
            received += buffer[: driver.result(portio.Read(read_key, buffer))]
        assert received == data[: done.nbytes]
        # and nothing more than that is in the pipe
        assert driver.result(portio.Write(write_key, b"END")) == 3
        buffer = bytearray(8)
        assert driver.result(portio.Read(read_key, buffer)) == 3
        assert buffer[:3] == b"END"


@wine_forgets_what_was_sent
def test_o6_a_sendfile(driver: Driver, net: Net, tmp_path: Path) -> None:
    data = pattern(4 << 20)
    (tmp_path / "source").write_bytes(data)
    ours, peer = net.small_pair()
    key = driver.associate(ours)
    with portio.open(tmp_path / "source") as source:
        driver.submit(send := portio.SendFile(key, source))
        done = cancel_and_wait(driver, send)
        assert cancelled(done)
        driver.submit(end := portio.Shutdown(key))
        with Background(recv_exactly, peer, len(data)) as reader:
            driver.wait_for(end).result()
            assert reader.result() == data[: done.nbytes]


def test_o6_files_complete_one_way_or_the_other(driver: Driver, tmp_path: Path) -> None:
    data = pattern(1 << 20)
    (tmp_path / "file").write_bytes(data)
    with portio.open(tmp_path / "file", "r+") as file:
        key = driver.associate(file)
        for _ in range(20):
            buffer = bytearray(1 << 20)
            operations: list[portio.Operation[Any]] = [
                portio.Read(key, buffer),
                portio.Write(key, data),
                portio.Sync(key),
            ]
            driver.submit(*operations)
            for operation in operations:
                driver.cancel(operation)
            read, write, _ = dones = driver.wait_for_all(operations)
            for done in dones:
                if not cancelled(done):
                    done.result()
            assert buffer[: read.nbytes] == data[: read.nbytes]
            assert (read.nbytes == len(data)) or cancelled(read)
            assert (write.nbytes == len(data)) or cancelled(write)


def test_o6_again_and_again_while_a_thread_of_the_kernel_works(
    driver: Driver, tmp_path: Path
) -> None:
    """A Sync cannot be taken back from who carries it out; asking more than once is harmless."""
    with portio.open(tmp_path / "file", "w+") as file:
        key = driver.associate(file)
        for _ in range(3):
            write = portio.Write(key, pattern(8 << 20))
            assert driver.result(write) == 8 << 20
            syncs = [portio.Sync(key) for _ in range(12)]
            driver.submit(*syncs)
            for _ in range(3):
                for sync in syncs:
                    driver.cancel(sync)
            for done in driver.wait_for_all(syncs):
                if not cancelled(done):
                    done.result()
        driver.assert_quiet()


def test_o6_connect_shutdown_and_sync_in_a_row(driver: Driver, net: Net) -> None:
    """A Shutdown waits for the sends before it; cancelled there, it does not happen."""
    ours, peer = net.small_pair()
    key = driver.associate(ours)
    send, end = portio.Send(key, bytes(1_000_000)), portio.Shutdown(key)
    driver.submit(send, end)
    assert cancelled(cancel_and_wait(driver, end))
    with Background(recv_exactly, peer, 1_000_005) as reader:
        assert driver.wait_for(send).result() == 1_000_000
        assert driver.result(portio.Send(key, b"after")) == 5
        assert reader.result()[-5:] == b"after"


# A request only


@pytest.mark.core
def test_o6_cancelling_a_completed_operation_is_a_no_op(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    receive = portio.Recv(driver.associate(ours), bytearray(4))
    peer.sendall(b"data")
    assert driver.result(receive) == 4
    driver.cancel(receive)
    driver.cancel(receive)
    driver.assert_quiet()
    assert receive.result() == 4
    peer.sendall(b"more")
    assert driver.result(receive) == 4  # the old cancel does not reach the new life


def test_o6_cancelling_what_was_never_started_is_a_no_op(driver: Driver) -> None:
    timer = portio.Timer(0)
    driver.cancel(timer)
    assert driver.result(timer) is None


def test_o6_cancelling_many_times(driver: Driver) -> None:
    timer = portio.Timer(1000)
    driver.submit(timer)
    for _ in range(10):
        driver.cancel(timer)
    assert cancelled(driver.wait_for(timer))
    driver.assert_quiet()


def test_o6_cancelling_after_the_port_or_the_key_is_closed(driver: Driver, net: Net) -> None:
    ours, _ = net.pair()
    key = driver.associate(ours)
    driver.submit(receive := portio.Recv(key, bytearray(1)), timer := portio.Timer(1000))
    driver.close_key(key)
    driver.cancel(receive)
    driver.wait_for(receive)
    driver.close()
    with contextlib.suppress(portio.PortClosedError):
        driver.cancel(timer)
    assert not timer.pending


def test_o6_a_completed_packet_in_the_queue_stays_what_it_is(port: portio.Port, net: Net) -> None:
    """Done, but not taken yet: too late to cancel, and nothing is lost."""
    ours, peer = net.pair(LOCAL)
    peer.sendall(b"data")
    receive = portio.Recv(port.associate(ours), bytearray(4))
    port.submit(receive, marker := portio.Timer(0))
    receive.cancel()
    taken = [port.get(LIMIT), port.get(LIMIT)]
    [done] = [packet for packet in taken if packet and packet.operation is receive]
    if not cancelled(done):
        assert receive.buffer == b"data"
    else:
        assert recv_exactly(ours, 4) == b"data"
    assert marker in [packet.operation for packet in taken if packet]


@pytest.mark.core
def test_o6_races_with_the_data(driver: Driver, net: Net) -> None:
    """However the race ends there is one completion, and every byte arrives once."""
    ours, peer = net.pair(LOCAL)
    key = driver.associate(ours)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)  # for what nobody reads yet
    received, sent = bytearray(), bytearray()
    start = threading.Barrier(2)

    def send() -> None:
        for number in range(300):
            start.wait(LIMIT)
            peer.sendall(bytes([number % 251]))
            sent.append(number % 251)

    with Background(send):
        for _ in range(300):
            receive = portio.Recv(key, bytearray(16))
            driver.submit(receive)
            start.wait(LIMIT)
            done = cancel_and_wait(driver, receive)
            if not cancelled(done):
                received += receive.buffer[: done.result()]
    while len(received) < 300:
        receive = portio.Recv(key, bytearray(512))
        received += receive.buffer[: driver.result(receive)]
    assert received == sent
    driver.assert_quiet()


def test_o6_races_with_a_connecting_client(driver: Driver, net: Net) -> None:
    """A client that was accepted is delivered, one that was not waits for the next Accept."""
    listener = net.listener(LOCAL)
    key = driver.associate(listener)
    peers: list[Any] = []
    accepted = 0
    start = threading.Barrier(2)

    def connect() -> None:
        for _ in range(60):
            start.wait(LIMIT)
            peers.append(net.client(listener))

    with Background(connect):
        for _ in range(60):
            driver.submit(accept := portio.Accept(key))
            start.wait(LIMIT)
            done = cancel_and_wait(driver, accept)
            if not cancelled(done):
                done.result().close()
                accepted += 1
    while accepted < 60:
        driver.result(portio.Accept(key)).close()
        accepted += 1
    assert all(peer.recv(1) == b"" for peer in peers)


def test_o6_races_with_a_timer(driver: Driver) -> None:
    for number in range(200):
        timer = portio.Timer(number * 2e-6)
        driver.submit(timer)
        cancelled(cancel_and_wait(driver, timer))
    driver.assert_quiet()


def test_o6_races_from_many_threads(make_port: MakePort, net: Net) -> None:
    """Submit, complete and cancel, each in threads of its own."""
    port = make_port(4)
    ours, peer = net.pair(LOCAL)
    key = port.associate(ours)
    count, outcomes = 1500, dict.fromkeys((True, False), 0)
    lock, done_all = threading.Lock(), threading.Event()
    received = 0

    def serve() -> None:
        nonlocal received
        for done in port:
            assert isinstance(done.operation, portio.Recv)
            was = cancelled(done)
            with lock:
                outcomes[was] += 1
                received += done.nbytes
                if sum(outcomes.values()) == count:
                    done_all.set()

    workers = [Background(serve) for _ in range(2)]
    receives = [portio.Recv(key, bytearray(1)) for _ in range(count)]

    def cancel() -> None:
        for receive in receives:
            receive.cancel()

    submitting = Background(lambda: [port.submit(receive) for receive in receives])
    cancelling = [Background(cancel) for _ in range(2)]
    sending = Background(peer.sendall, bytes(count))
    for thread in (submitting, *cancelling, sending):
        thread.result()
    cancel()
    while not done_all.wait(0.05):
        cancel()
        assert all(worker.is_alive() for worker in workers)
    ours_rest = count - received
    port.close()
    for worker in workers:
        worker.result()
    assert len(recv_exactly(ours, ours_rest)) == ours_rest


# Cancelled is not reset, and reset is not cancelled


def test_o6_a_reset_stays_a_reset(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    driver.submit(receive := portio.Recv(driver.associate(ours), bytearray(4)))
    reset(peer)
    done = driver.wait_for(receive)
    assert type(done.error) is ConnectionResetError
    driver.cancel(receive)
    driver.assert_quiet()


def test_o6_cancel_from_other_threads(driver: Driver) -> None:
    timers = [portio.Timer(1000) for _ in range(20)]
    driver.submit(*timers)
    for thread in [Background(driver.cancel, timer) for timer in timers]:
        thread.result()
    assert all(cancelled(done) for done in driver.wait_for_all(timers))


def test_o6_unqueued_operations(driver: Driver) -> None:
    timer = portio.Timer(1000)
    driver.submit(timer, queued=False)
    driver.cancel(timer)
    assert cancelled(driver.wait(timer))
    driver.assert_quiet()


def test_o6_a_full_pipe_of_the_programs_own(driver: Driver) -> None:
    """A raw, blocking descriptor: the cancel must not hang on the write."""
    read_end, write_end = handles.open_pipe()
    try:
        handles.fill_pipe(write_end)
        driver.submit(write := portio.Write(driver.associate(write_end), bytes(10)))
        done = cancel_and_wait(driver, write)
        assert cancelled(done)
        assert done.nbytes == 0
        driver.close()
    finally:
        handles.close(read_end)
        handles.close(write_end)


def test_o6_the_handle_is_as_good_as_before(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    fill(ours)
    driver.submit(send := portio.Send(key, b"never"), receive := portio.Recv(key, bytearray(4)))
    assert cancelled(cancel_and_wait(driver, send))
    assert cancelled(cancel_and_wait(driver, receive))
    if not WINE:  # which cannot disassociate
        driver.disassociate(key)
        key = driver.associate(ours)
    peer.sendall(b"good")
    assert driver.result(portio.Recv(key, bytearray(8))) == 4
