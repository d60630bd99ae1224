"""O15 quiet: operations that give a packet only when they fail."""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

import portio
import portio.backends
from support.children import Child
from support.drivers import Driver
from support.kinds import every_kind
from support.net import STREAMS, Net, fill, pattern, recv_all, recv_exactly, reset
from support.system import LOCAL, WINDOWS
from support.threads import Background
from support.watch import LIMIT, eventually, wait_until_blocked

SMALL = 4096
LARGE = 4 * 1024 * 1024


def until_idle(driver: Driver, *operations: portio.Operation[Any], packets: bool = False) -> None:
    """Let the port work until none of these is pending; unless `packets`, it gives none."""

    def idle() -> bool:
        if packets:
            driver.settle()
        else:
            driver.assert_quiet()
        return not any(operation.pending for operation in operations)

    eventually(idle, "the quiet operations end")


def drain(driver: Driver, peer: socket.socket, count: int) -> bytes:
    """So many bytes from the peer, while the port works."""
    received = bytearray()
    peer.setblocking(False)

    def complete() -> bool:
        try:
            while len(received) < count:
                received.extend(peer.recv(65536))
        except BlockingIOError:
            driver.settle()
        return len(received) >= count

    eventually(complete, f"{count} bytes arrive")
    return bytes(received)


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o15_a_success_gives_no_packet(driver: Driver, net: Net, family: str) -> None:
    ours, peer = net.pair(family)
    key = driver.associate(ours)
    send = portio.Send(key, b"answer")
    for _ in range(3):  # O5: again, when it is done
        driver.submit_quiet(send)
        assert recv_exactly(peer, 6) == b"answer"
        until_idle(driver, send)
        assert send.result() == 6
    driver.assert_quiet()


@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
@pytest.mark.parametrize("family", STREAMS)
def test_o15_a_small_send_ends_within_submit(
    backend: str, net: Net, family: str, kind: str
) -> None:
    """Where there is room for it, and nothing before it."""
    status = portio.backends.available()[backend]
    if WINDOWS and "skip_success" not in status.features:
        pytest.skip("the system queues the packet of a success: no feature skip_success")
    ours, peer = net.pair(family)
    with portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port:
        send = portio.Send(port.associate(ours), b"answer")
        for _ in range(20):
            port.submit(send, quiet=True)
            assert not send.pending
            assert send.result() == 6
        assert port.get(0) is None
        assert recv_exactly(peer, 120) == b"answer" * 20


@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_o15_a_read_of_what_is_cached_ends_within_submit(
    backend: str, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 64)
    with (
        portio.open(path) as file,
        portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port,
    ):
        key = port.associate(file)
        buffer = bytearray(4096)
        read = portio.Read(key, buffer)
        at_once = 0
        for offset in range(0, 4096, 512):
            read.offset = offset
            buffer[:] = bytes(4096)
            port.submit(read, quiet=True)
            at_once += not read.pending
            eventually(lambda: port.get(0) is None and not read.pending, "it ends")
            assert read.result() == 4096
            assert buffer == bytes(range(256)) * 16
        # Not all file systems have RWF_NOWAIT, and none has to find everything in the cache.
        assert at_once > 0 or system_cannot_tell(path)
        # At the end of the file it is short, and behind it empty.
        for offset, left in ((16384 - 100, 100), (16384, 0), (1 << 40, 0)):
            read.offset = offset
            port.submit(read, quiet=True)
            eventually(lambda: port.get(0) is None and not read.pending, "it ends")
            assert read.result() == left
        read.buffer, read.offset = b"", 0
        with pytest.raises(BufferError):
            port.submit(read, quiet=True)


def system_cannot_tell(path: Path) -> bool:
    """Whether the file's system has no RWF_NOWAIT, as tmpfs; Windows may queue each packet."""
    if WINDOWS:
        return True
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except OSError as error:
        return error.errno == errno.EOPNOTSUPP
    else:
        return False
    finally:
        os.close(descriptor)


def test_o15_p6_a_failure_at_once_wakes_who_waits(shared_port: portio.Port, net: Net) -> None:
    ours, peer = net.pair(LOCAL)
    send = portio.Send(shared_port.associate(ours), b"answer")
    peer.close()
    with Background(shared_port.get, LIMIT * 3) as waiter:
        wait_until_blocked(waiter)
        while waiter.is_alive():  # TCP tells of the end with the second send only
            shared_port.submit(send, quiet=True)
            eventually(lambda: not send.pending, "it has ended, and its packet was taken")
        done = waiter.result(LIMIT)
        assert done is not None
        assert done.operation is send
        assert isinstance(done.error, ConnectionError)


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o15_o8_one_that_has_to_wait(driver: Driver, net: Net, family: str) -> None:
    ours, peer = net.small_pair(family)
    data = pattern(LARGE)
    send = portio.Send(driver.associate(ours), data)
    driver.submit_quiet(send)
    assert send.pending
    assert drain(driver, peer, LARGE) == data
    until_idle(driver, send)
    assert send.result() == LARGE


def test_o15_o9_it_keeps_its_turn(driver: Driver, net: Net) -> None:
    """Behind a send that waits, and in front of one that comes later."""
    ours, peer = net.small_pair()
    key = driver.associate(ours)
    first, last = portio.Send(key, pattern(LARGE)), portio.Send(key, b"last")
    quiet = [portio.Send(key, b"%04d" % number) for number in range(20)]
    driver.submit(first)
    driver.submit_quiet(*quiet[:10])
    for send in quiet[10:]:
        driver.submit_quiet(send)
    driver.submit(last)
    driver.submit(end := portio.Shutdown(key, socket.SHUT_WR))
    received = drain(driver, peer, LARGE + 84)
    assert received[:LARGE] == pattern(LARGE)
    assert received[LARGE:] == b"".join(b"%04d" % number for number in range(20)) + b"last"
    until_idle(driver, first, *quiet, last, end, packets=True)
    driver.settle()  # the packets of those that are not quiet
    peer.setblocking(True)
    assert recv_all(peer) == b""


def test_o15_a_failure_gives_its_packet(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    reset(peer)
    until = time.monotonic() + 20
    failed = None
    while failed is None and time.monotonic() < until:
        send = portio.Send(key, b"x" * SMALL)
        driver.submit_quiet(send)
        for packet in driver.settle():
            failed = packet
    assert failed is not None
    assert failed.operation is send
    assert isinstance(failed.error, ConnectionError)
    assert failed.key is key
    with pytest.raises(ConnectionError):
        send.result()


@pytest.mark.core
def test_o15_o6_a_cancelled_one_gives_its_packet(driver: Driver, net: Net) -> None:
    ours, peer = net.small_pair()
    fill(ours)
    send = portio.Send(driver.associate(ours), b"never")
    driver.submit_quiet(send)
    driver.cancel(send)
    done = driver.wait_for(send)
    assert isinstance(done.error, portio.OperationCancelledError)
    assert done.nbytes == 0
    driver.assert_quiet()
    del peer


@pytest.mark.core
def test_o15_o3_the_buffer_is_pinned_no_longer_than_needed(driver: Driver, net: Net) -> None:
    ours, peer = net.small_pair()
    buffer = bytearray(pattern(LARGE))
    send = portio.Send(driver.associate(ours), buffer)
    driver.submit_quiet(send)
    with pytest.raises(BufferError):
        buffer.append(0)
    assert drain(driver, peer, LARGE) == pattern(LARGE)
    until_idle(driver, send)
    gc.collect()
    buffer.append(0)


def test_o15_every_kind(driver: Driver, net: Net, tmp_path: Path) -> None:
    with every_kind(driver, net, tmp_path) as (expected, accept):
        for operation, result in expected:
            driver.submit_quiet(operation)
            until_idle(driver, operation)
            assert operation.result() == result
        driver.submit_quiet(accept)
        until_idle(driver, accept)
        net.own(accept.result())


def test_o15_a_full_pipe_and_a_write(driver: Driver) -> None:
    reader, writer = portio.pipe()
    with reader, writer:
        read_key, write_key = driver.associate(reader), driver.associate(writer)
        data = pattern(1024 * 1024)
        write = portio.Write(write_key, data)
        driver.submit_quiet(write)
        received = bytearray()
        buffer = bytearray(65536)
        while len(received) < len(data):
            count = driver.result(portio.Read(read_key, buffer))
            received += buffer[:count]
        assert received == data
        until_idle(driver, write)


def test_o15_o13_not_together_with_a_wait(driver: Driver, net: Net) -> None:
    ours, _ = net.pair()
    send = portio.Send(driver.associate(ours), b"x")
    with pytest.raises(ValueError, match="quiet"):
        driver.call(driver.port.submit, send, queued=False, quiet=True)
    assert not send.pending
    driver.submit(send)
    with pytest.raises(RuntimeError, match="queue"):
        driver.call(send.wait)
    driver.wait_for(send)


def test_o15_o2_misuse_starts_nothing(driver: Driver, net: Net) -> None:
    ours, peer = net.small_pair()
    fill(ours)
    key = driver.associate(ours)
    send = portio.Send(key, b"x")
    driver.submit_quiet(send)
    with pytest.raises(RuntimeError, match="pending"):
        driver.call(driver.port.submit, send, quiet=True)
    driver.cancel(send)
    driver.wait_for(send)
    driver.close_key(key)
    with pytest.raises(ValueError, match="closed"):
        driver.call(driver.port.submit, send, quiet=True)
    assert not send.pending
    del peer


def test_o15_p7_closing_the_port(backend: str, net: Net) -> None:
    ours, peer = net.small_pair()
    fill(ours)
    buffer = bytearray(10)
    with portio.Port(backend=backend) as port:
        send = portio.Send(port.associate(ours), buffer)
        port.submit(send, quiet=True)
        assert send.pending
    assert not send.pending
    buffer.append(0)
    del peer


STORM = """
    import signal, socket, sys, portio
    backend, role, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    port = portio.Port(backend=backend, thread_bound=role == "thread_bound")
    ours, peer = socket.socketpair()
    key = port.associate(ours)
    armed = []

    def interrupt(number, frame):
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    print("start")
    received = interrupts = 0
    for number in range(count):
        send = portio.Send(key, b"x")
        try:
            armed.append(True)
            port.submit(send, quiet=True)
            armed.clear()
        except KeyboardInterrupt:
            interrupts += 1
        armed.clear()
        while send.pending:
            unexpected = port.get_many(8, 0)
            assert not unexpected, unexpected
            if not port._pending:
                break
        assert not send.pending or not port._pending, f"{send} after {interrupts} interrupts"
        assert not port._pending, f"an entry is left after {interrupts} interrupts"
        peer.setblocking(False)
        try:
            received += len(peer.recv(100))
        except BlockingIOError:
            pass
    # An exception at the very moment at which a slot is taken from the list loses
    # the slot, and nothing else.
    slots = len(port._free)
    assert len(set(port._free)) == slots >= port._slots - 1 - interrupts, (slots, port._slots)
    print("all there after", interrupts, "interrupts")
    sys.stdin.read()
"""


@pytest.mark.parametrize("role", ["shared", "thread_bound"])
def test_o15_p8_an_interrupt_leaves_nothing_behind(backend: str, role: str) -> None:
    with Child(STORM, backend, role, 20_000) as child:
        child.expect("start")
        while not child.speaks_within(0):
            child.signal(signal.SIGINT)
            time.sleep(0.0005)  # how often, not how long: any pace must do
        assert child.line().startswith("all there")
