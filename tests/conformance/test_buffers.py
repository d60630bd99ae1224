"""O3 buffers: pinned from submit until the completion leaves the port.  O11 sizes."""

from __future__ import annotations

import array
import gc
import mmap
import socket
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portio
from support.drivers import Driver
from support.net import STREAMS, Net, fill, pattern, recv_all, recv_exactly
from support.system import LOCAL
from support.threads import Background
from support.watch import LIMIT

MakePort = Callable[..., portio.Port]


class Tracked(bytearray):
    """A bytearray to which weak references are possible."""


# O3 buffers


@pytest.mark.core
def test_o3_a_pending_buffer_cannot_be_resized(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    buffer = bytearray(8)
    receive = portio.Recv(driver.associate(ours), buffer)
    driver.submit(receive)
    for resize in (lambda: buffer.append(0), buffer.clear, lambda: buffer.extend(b"x" * 100)):
        with pytest.raises(BufferError):
            resize()
    peer.sendall(b"12345678")
    assert driver.wait_for(receive).result() == 8
    buffer.extend(b"9")  # its completion has left the port
    assert buffer == b"123456789"


def test_o3_pinned_while_the_completion_is_in_the_port(port: portio.Port, net: Net) -> None:
    """Completed is not enough: the packet must have left."""
    ours, peer = net.pair()
    buffer = bytearray(8)
    port.submit(portio.Recv(port.associate(ours), buffer))
    peer.sendall(b"x")
    with pytest.raises(BufferError):
        buffer.append(0)
    assert port.get(LIMIT) is not None
    buffer.append(0)


def test_o3_unqueued_pinned_until_waited_for(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    buffer = bytearray(8)
    receive = portio.Recv(driver.associate(ours), buffer)
    driver.submit(receive, queued=False)
    peer.sendall(b"x")
    driver.assert_quiet()
    with pytest.raises(BufferError):
        buffer.append(0)
    assert driver.wait(receive).result() == 1
    buffer.append(0)


def test_o3_each_buffer_of_a_sequence(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    buffers = [bytearray(2) for _ in range(4)]
    receive = portio.Recv(driver.associate(ours), buffers)
    driver.submit(receive)
    for buffer in buffers:
        with pytest.raises(BufferError):
            buffer.append(0)
    peer.sendall(b"x")
    driver.wait_for(receive)
    for buffer in buffers:
        buffer.append(0)


def test_o3_the_list_itself_may_change_while_it_is_pending(driver: Driver, net: Net) -> None:
    """What counts is the sequence as it was at submit."""
    ours, peer = net.pair()
    first, second = bytearray(2), bytearray(2)
    buffers = [first, second]
    receive = portio.Recv(driver.associate(ours), buffers)
    driver.submit(receive)
    buffers.clear()
    gc.collect()
    peer.sendall(b"abcd")
    driver.wait_for(receive)
    assert first[0] == ord("a")
    first.append(0)
    second.append(0)


@pytest.mark.core
def test_o3_every_reference_dropped(driver: Driver, net: Net) -> None:
    """The program forgets operation, buffer and key; the port does not."""
    ours, peer = net.pair()

    def start() -> weakref.ref[Tracked]:
        buffer = Tracked(4096)
        driver.submit(portio.Recv(driver.associate(ours), buffer))
        return weakref.ref(buffer)

    alive = start()
    gc.collect()
    assert alive() is not None
    peer.sendall(b"remembered")
    [done] = driver.take()
    assert done.result() == 10
    assert isinstance(done.operation, portio.Recv)
    assert done.operation.buffer is alive()
    assert done.operation.buffer[:10] == b"remembered"
    del done
    driver.assert_quiet()
    gc.collect()
    assert alive() is None  # and nothing else holds it afterwards


@pytest.mark.core
def test_o3_sent_bytes_are_not_freed_before_they_are_sent(driver: Driver, net: Net) -> None:
    ours, peer = net.small_pair()
    key = driver.associate(ours)
    data = pattern(1 << 20)
    for start in range(0, len(data), 1 << 17):
        driver.submit(portio.Send(key, data[start : start + (1 << 17)]))  # the only reference
    gc.collect()
    noise = [bytes(1 << 17) for _ in range(16)]  # whoever is freed too early is overwritten
    with Background(recv_exactly, peer, len(data)) as reader:
        assert all(done.result() == 1 << 17 for done in driver.take(8))
        assert reader.result() == data
    del noise


def test_o3_freed_by_close(port: portio.Port, net: Net) -> None:
    ours, _ = net.pair()
    buffer = Tracked(64)
    alive = weakref.ref(buffer)
    port.submit(portio.Recv(port.associate(ours), buffer))
    with pytest.raises(BufferError):
        buffer.append(0)
    port.close()
    buffer.append(0)
    del buffer
    gc.collect()
    assert alive() is None


def test_o3_freed_by_an_error_or_a_cancel(driver: Driver, net: Net) -> None:
    ours, _ = net.pair()
    buffer, other = bytearray(8), bytearray(8)
    receive = portio.Recv(driver.associate(ours), buffer)
    driver.submit(receive)
    driver.cancel(receive)
    driver.wait_for(receive)
    buffer.append(0)
    assert driver.run(portio.Recv(driver.associate(net.socket()), other)).error is not None
    other.append(0)


def test_o3_no_reference_is_lost_or_kept(driver: Driver, net: Net) -> None:
    """After many operations each object is counted as often as before."""
    ours, peer = net.pair(LOCAL)
    key = driver.associate(ours)
    buffer, data, payload = bytearray(16), bytes(bytearray(b"0123456789")), object()
    driver.result(portio.Send(key, data))
    recv_exactly(peer, 10)
    driver.assert_quiet()
    gc.collect()
    before = [sys.getrefcount(thing) for thing in (buffer, data, payload, key)]
    for _ in range(200):
        operations: list[portio.Operation[Any]] = [
            portio.Send(key, data),
            portio.Send(key, [data, data]),
            portio.Recv(key, buffer),
            portio.Recv(key, [buffer, buffer]),
        ]
        driver.submit(*operations)
        driver.post(key, 1, payload)
        for operation in operations:
            if isinstance(operation, portio.Recv):
                peer.sendall(b"x")
            driver.wait_for(operation).result()
        assert driver.take()[0].payload is payload
        assert len(recv_exactly(peer, 30)) == 30
    del operations, operation
    driver.assert_quiet()  # no worker holds its last packet any more
    gc.collect()
    after = [sys.getrefcount(thing) for thing in (buffer, data, payload, key)]
    assert after == before


def test_o3_views_memory_maps_and_arrays(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    backing = bytearray(16)
    numbers = array.array("H", [0] * 4)
    with mmap.mmap(-1, 4096) as region:
        for buffer, look in (
            (memoryview(backing)[4:12], lambda: backing[4:12]),
            (numbers, numbers.tobytes),
            (region, lambda: region[:8]),
        ):
            driver.submit(receive := portio.Recv(key, buffer))
            with pytest.raises(BufferError):
                _resize(buffer, backing)
            peer.sendall(b"abcdefgh")
            assert driver.wait_for(receive).result() == 8
            assert look() == b"abcdefgh"
    backing.append(0)


def _resize(buffer: Any, backing: bytearray) -> None:
    if isinstance(buffer, memoryview):
        backing.append(0)
    elif isinstance(buffer, array.array):
        buffer.append(0)
    else:
        buffer.resize(8192)


# O11 sizes: zero, many, and in-between.  Gigabytes are in test_large.


@pytest.mark.core
@pytest.mark.parametrize("empty", [b"", bytearray(), [], [b"", b""]], ids=repr)
def test_o11_a_send_of_nothing(driver: Driver, net: Net, empty: Any) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    done = driver.run(portio.Send(key, empty))
    assert done.result() == 0
    assert driver.result(portio.Send(key, b"x")) == 1
    assert peer.recv(8) == b"x"


@pytest.mark.parametrize("empty", [bytearray(), [], [bytearray(), bytearray()]], ids=repr)
def test_o11_a_receive_of_nothing(driver: Driver, net: Net, empty: Any) -> None:
    """Where data is waiting it completes with 0 and takes nothing of it."""
    ours, peer = net.pair()
    key = driver.associate(ours)
    peer.sendall(b"data")
    assert driver.result(portio.Recv(key, empty)) == 0
    buffer = bytearray(8)
    assert driver.result(portio.Recv(key, buffer)) == 4
    assert buffer[:4] == b"data"


@pytest.mark.core
@pytest.mark.parametrize("empty", [bytearray(), [], [bytearray(), bytearray()]], ids=repr)
def test_o11_files_and_nothing(driver: Driver, tmp_path: Path, empty: Any) -> None:
    (tmp_path / "file").write_bytes(b"contents")
    with portio.open(tmp_path / "file", "r+") as file:
        key = driver.associate(file)
        assert driver.result(portio.Read(key, empty)) == 0
        assert driver.result(portio.Read(key, empty, 1000)) == 0
        assert driver.result(portio.Write(key, empty)) == 0
        assert driver.result(portio.Write(key, empty, 1000)) == 0
    assert (tmp_path / "file").read_bytes() == b"contents"


def test_o11_pipes_and_nothing(driver: Driver) -> None:
    reader, writer = portio.pipe()
    with reader, writer:
        read_key, write_key = driver.associate(reader), driver.associate(writer)
        assert driver.result(portio.Write(write_key, b"")) == 0
        assert driver.result(portio.Write(write_key, b"x")) == 1
        assert driver.result(portio.Read(read_key, bytearray())) == 0
        assert driver.result(portio.Read(read_key, bytearray(4))) == 1


def test_o11_empty_buffers_among_others(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    assert driver.result(portio.Send(key, [b"", b"ab", b"", b"cd", b""])) == 4
    assert recv_exactly(peer, 4) == b"abcd"
    peer.sendall(b"wxyz")
    buffers = [bytearray(), bytearray(1), bytearray(), bytearray(3)]
    assert driver.result(portio.Recv(key, buffers)) == 4
    assert b"".join(buffers) == b"wxyz"


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o11_scatter_and_gather(driver: Driver, net: Net, family: str) -> None:
    ours, peer = net.pair(family)
    key = driver.associate(ours)
    assert driver.result(portio.Send(key, (b"one", bytearray(b"two"), memoryview(b"three")))) == 11
    assert recv_exactly(peer, 11) == b"onetwothree"
    peer.sendall(b"0123456789")
    buffers = [bytearray(4), bytearray(4), bytearray(4)]
    assert driver.result(portio.Recv(key, buffers)) == 10
    assert buffers == [b"0123", b"4567", b"89\0\0"]


@pytest.mark.core
def test_o11_more_buffers_than_iov_max_to_a_stream(driver: Driver, net: Net) -> None:
    """The system takes 1024 in one call; a Send takes what it is given."""
    ours, peer = net.small_pair()
    key = driver.associate(ours)
    data = pattern(5000 * 37)
    pieces = [data[start : start + 37] for start in range(0, len(data), 37)]
    driver.submit(send := portio.Send(key, pieces))
    with Background(recv_exactly, peer, len(data)) as reader:
        assert driver.wait_for(send).result() == len(data)
        assert reader.result() == data


def test_o11_more_buffers_than_iov_max_from_a_stream(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    data = pattern(3000 * 7)
    buffers = [bytearray(7) for _ in range(3000)]
    received = 0
    with Background(peer.sendall, data):
        while received < len(data):
            # Each time into what is still empty.
            rest = _after(buffers, received)
            count = driver.result(portio.Recv(key, rest))
            assert count >= 1
            received += count
    assert b"".join(buffers) == data


def _after(buffers: list[bytearray], count: int) -> list[memoryview]:
    whole, part = divmod(count, len(buffers[0]))
    views = [memoryview(buffer) for buffer in buffers[whole:]]
    return [views[0][part:], *views[1:]]


@pytest.mark.core
def test_o11_more_buffers_than_iov_max_to_and_from_a_file(driver: Driver, tmp_path: Path) -> None:
    data = pattern(4000 * 13)
    pieces = [data[start : start + 13] for start in range(0, len(data), 13)]
    with portio.open(tmp_path / "file", "w+") as file:
        key = driver.associate(file)
        assert driver.result(portio.Write(key, pieces, 5)) == len(data)
        buffers = [bytearray(26) for _ in range(2100)]
        assert driver.result(portio.Read(key, buffers, 5)) == len(data)
        assert b"".join(buffers)[: len(data)] == data
    assert (tmp_path / "file").read_bytes() == bytes(5) + data


def test_o11_more_buffers_than_iov_max_through_a_pipe(driver: Driver) -> None:
    data = pattern(3000 * 50)
    pieces = [data[start : start + 50] for start in range(0, len(data), 50)]
    reader, writer = portio.pipe()
    with reader, writer:
        read_key = driver.associate(reader)
        driver.submit(write := portio.Write(driver.associate(writer), pieces))
        received = bytearray()
        while len(received) < len(data):
            buffers = [bytearray(20) for _ in range(2000)]
            count = driver.result(portio.Read(read_key, buffers))
            received += b"".join(buffers)[:count]
        assert driver.wait_for(write).result() == len(data)
        assert received == data


def test_o11_more_buffers_than_iov_max_in_one_datagram(driver: Driver, net: Net) -> None:
    """A datagram goes in one call or not at all: an error is right, a torn one is not."""
    ours, peer = net.datagram(), net.datagram()
    key = driver.associate(ours)
    done = driver.run(portio.SendTo(key, [b"x"] * 3000, peer.getsockname()))
    if done.error is None:
        assert peer.recv(4096) == b"x" * 3000
    else:
        assert done.nbytes == 0
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(4096)
    assert driver.result(portio.SendTo(key, b"next", peer.getsockname())) == 4
    peer.settimeout(LIMIT)
    assert peer.recv(8) == b"next"


def test_o11_one_buffer_many_times(driver: Driver, net: Net) -> None:
    """The same object in several places and in several operations."""
    ours, peer = net.pair()
    key = driver.associate(ours)
    data = bytearray(b"again ")
    sends = [portio.Send(key, [data] * 10) for _ in range(3)]
    driver.submit(*sends)
    assert [done.result() for done in driver.wait_for_all(sends)] == [60] * 3
    data.append(0)
    assert recv_exactly(peer, 180) == b"again " * 30


def test_o11_a_megabyte_through_every_stream(driver: Driver, net: Net) -> None:
    data = pattern(1_000_003)
    for family in ("inet", LOCAL):
        ours, peer = net.pair(family)
        key = driver.associate(ours)
        with Background(recv_all, peer) as reader:
            driver.submit(send := portio.Send(key, data), end := portio.Shutdown(key))
            assert driver.wait_for(send).result() == len(data)
            driver.wait_for(end).result()
            assert reader.result() == data


def test_o3_a_full_socket_and_a_forgetful_program(make_port: MakePort, net: Net) -> None:
    """Close drains a Send that cannot end, and frees what it pinned."""
    port = make_port()
    ours, _ = net.small_pair()
    fill(ours)
    key = port.associate(ours)

    def start() -> weakref.ref[Tracked]:
        buffer = Tracked(100_000)
        port.submit(portio.Send(key, buffer))
        return weakref.ref(buffer)

    alive = start()
    gc.collect()
    assert alive() is not None
    port.close()
    gc.collect()
    assert alive() is None
    ours.shutdown(socket.SHUT_RDWR)
