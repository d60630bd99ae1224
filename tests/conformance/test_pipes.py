"""Read and Write on pipes, and other handles without offsets."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

import portio
from support import handles
from support.drivers import Driver
from support.net import pattern
from support.system import WINDOWS
from support.threads import Background


@pytest.fixture
def ends(closing: object) -> tuple[portio.PipeEnd, portio.PipeEnd]:
    """Both ends of a new pipe."""
    assert isinstance(closing, contextlib.ExitStack)
    reader, writer = portio.pipe()
    return closing.enter_context(reader), closing.enter_context(writer)


Ends = tuple[portio.PipeEnd, portio.PipeEnd]


@pytest.mark.core
def test_o1_there_and_back(driver: Driver, ends: Ends) -> None:
    reader, writer = (driver.associate(end) for end in ends)
    driver.submit(read := portio.Read(reader, bytearray(16)))
    driver.assert_quiet()
    done = driver.run(portio.Write(writer, b"through"))
    assert done.result() == done.nbytes == 7
    done = driver.wait_for(read)
    assert done.result() == 7
    assert done.key is reader
    assert read.buffer[:7] == b"through"


def test_k1_the_ends_are_file_like(ends: Ends) -> None:
    for end in ends:
        assert end.fileno() >= 0
        assert not end.closed
        assert not handles.get_inheritable(end.fileno())
    reader, writer = ends
    with writer as entered:
        assert entered is writer
    assert writer.closed
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.fileno()
    assert not reader.closed


def test_k1_a_pipe_forgotten_open_warns() -> None:
    with pytest.warns(ResourceWarning):
        portio.pipe()
        gc.collect()


def test_o8_a_read_returns_what_there_is(driver: Driver, ends: Ends) -> None:
    reader, writer = (driver.associate(end) for end in ends)
    driver.result(portio.Write(writer, b"123456789"))
    assert driver.result(portio.Read(reader, bytearray(4))) == 4
    assert driver.result(portio.Read(reader, bytearray(4000))) == 5


def test_o8_offsets_are_ignored(driver: Driver, ends: Ends) -> None:
    reader, writer = (driver.associate(end) for end in ends)
    assert driver.result(portio.Write(writer, b"anywhere", 2**40)) == 8
    assert driver.result(portio.Read(reader, bytearray(16), 12345)) == 8


@pytest.mark.core
def test_o8_a_write_larger_than_the_pipe_is_whole(driver: Driver, ends: Ends) -> None:
    reader, writer = (driver.associate(end) for end in ends)
    data = pattern(3_000_001)
    driver.submit(write := portio.Write(writer, data))
    driver.assert_quiet()
    assert write.pending
    received = bytearray()
    buffer = bytearray(1 << 16)
    while len(received) < len(data):
        received += buffer[: driver.result(portio.Read(reader, buffer))]
    assert driver.wait_for(write).result() == len(data)
    assert received == data


@pytest.mark.core
def test_o7_the_end_of_a_pipe(driver: Driver, ends: Ends) -> None:
    reader, writer = ends
    key = driver.associate(reader)
    handles.write(writer, b"last")
    writer.close()
    assert driver.result(portio.Read(key, bytearray(16))) == 4
    for _ in range(3):
        done = driver.run(portio.Read(key, bytearray(16)))
        assert done.error is None
        assert done.result() == 0


def test_o7_the_end_comes_while_reads_are_pending(driver: Driver, ends: Ends) -> None:
    reader, writer = ends
    key = driver.associate(reader)
    reads = [portio.Read(key, bytearray(4)) for _ in range(3)]
    driver.submit(*reads)
    writer_key = driver.associate(writer)
    driver.result(portio.Write(writer_key, b"x"))
    driver.close_key(writer_key)
    assert [done.result() for done in driver.wait_for_all(reads)] == [1, 0, 0]


def test_o8_no_reader_is_left(driver: Driver, ends: Ends) -> None:
    reader, writer = ends
    key = driver.associate(writer)
    driver.submit(write := portio.Write(key, bytes(1 << 20)))
    handles.read(reader, 1)
    reader.close()
    done = driver.wait_for(write)
    assert isinstance(done.error, BrokenPipeError)
    assert 1 <= done.nbytes < 1 << 20
    done = driver.run(portio.Write(key, b"x"))
    assert isinstance(done.error, BrokenPipeError)
    assert done.nbytes == 0


@pytest.mark.core
def test_o9_the_order_of_many_writes_and_reads(driver: Driver, ends: Ends) -> None:
    reader, writer = (driver.associate(end) for end in ends)
    data = pattern(1 << 20)
    writes, start = [], 0
    while start < len(data):
        size = 1 + (start * 7919) % 20_011
        writes.append(portio.Write(writer, data[start : start + size]))
        start += size
    driver.submit(*writes)
    received = bytearray()
    while len(received) < len(data):
        reads = [portio.Read(reader, bytearray(1 + n * 97)) for n in range(30)]
        driver.submit(*reads)
        for read in reads:
            if len(received) == len(data):
                driver.cancel(read)
                driver.wait_for(read)
            else:
                received += read.buffer[: driver.wait_for(read).result()]
    assert received == data
    for done in driver.wait_for_all(writes):
        assert done.error is None


@pytest.mark.core
def test_o11_scatter_and_gather(driver: Driver, ends: Ends) -> None:
    reader, writer = (driver.associate(end) for end in ends)
    assert driver.result(portio.Write(writer, [b"one", b"", b"two", bytearray(b"three")])) == 11
    buffers = [bytearray(2), bytearray(5), bytearray(10)]
    assert driver.result(portio.Read(reader, buffers)) == 11
    assert buffers == [b"on", b"etwot", b"hree" + bytes(6)]


@pytest.mark.skipif(WINDOWS, reason="every pipe of portio's is a named one there")
def test_o1_a_named_pipe(driver: Driver, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    read_end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_end = os.open(path, os.O_WRONLY)
    try:
        read = portio.Read(driver.associate(read_end), bytearray(8))
        driver.submit(read)
        assert driver.result(portio.Write(driver.associate(write_end), b"named")) == 5
        assert driver.wait_for(read).result() == 5
        driver.close()
    finally:
        os.close(read_end)
        os.close(write_end)


@pytest.mark.skipif(WINDOWS, reason="a console is no handle for overlapped I/O")
def test_o1_a_terminal(driver: Driver) -> None:
    """Character devices have no offsets either."""
    import pty
    import tty

    master, slave = pty.openpty()
    try:
        tty.setraw(slave)
        read = portio.Read(driver.associate(slave), bytearray(16))
        driver.submit(read)
        driver.assert_quiet()
        assert driver.result(portio.Write(driver.associate(master), b"typed")) == 5
        assert driver.wait_for(read).result() == 5
        assert read.buffer[:5] == b"typed"
        driver.close()
    finally:
        os.close(master)
        os.close(slave)


def test_o1_a_pipe_to_another_process(driver: Driver) -> None:
    reader, descriptor = handles.open_pipe_for_child()
    key = driver.associate(reader)
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", "import os; os.write(1, b'from the child' * 10000)"],
            stdout=descriptor,
        )
    finally:
        os.close(descriptor)
    received = bytearray()
    buffer = bytearray(4096)
    while count := driver.result(portio.Read(key, buffer)):
        received += buffer[:count]
    assert child.wait(30) == 0
    assert received == b"from the child" * 10000
    driver.close_key(key)


def test_o1_many_pipes_at_once(driver: Driver) -> None:
    with contextlib.ExitStack() as stack:
        pipes = [portio.pipe() for _ in range(100)]
        for reader, writer in pipes:
            stack.enter_context(reader)
            stack.enter_context(writer)
        reads = [portio.Read(driver.associate(reader), bytearray(8)) for reader, _ in pipes]
        driver.submit(*reads)
        with Background(
            lambda: [handles.write(writer, b"%03d" % n) for n, (_, writer) in enumerate(pipes)]
        ):
            for number, done in enumerate(driver.wait_for_all(reads)):
                assert done.result() == 3
                assert reads[number].buffer[:3] == b"%03d" % number
