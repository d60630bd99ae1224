"""O11: buffers over 2 GiB, which the system takes only in several steps.

The memory stays small: what is sent is a mapping of which no page was ever
written, and what is received is thrown away at once.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import portio
from support.drivers import Driver
from support.handles import make_sparse
from support.net import Net, recv_count
from support.system import LOCAL, WINDOWS
from support.threads import Background

pytestmark = pytest.mark.large

SIZE = (2 << 30) + 12_345
"""More than a signed 32-bit number counts, and than one system call moves."""

SLOW = 100.0


@pytest.fixture
def region() -> Iterator[mmap.mmap]:
    """SIZE bytes, all zero, that take up no memory until they are written."""
    options = {} if WINDOWS else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
    with mmap.mmap(-1, SIZE, **options) as region:
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            region.madvise(mmap.MADV_NOHUGEPAGE)
        yield region


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with enough room, in memory where there is one: its holes cost nothing."""
    shared = Path("/dev/shm")  # noqa: S108 - a folder of our own in it
    parent = shared if shared.is_dir() and os.access(shared, os.W_OK) else tmp_path
    if shutil.disk_usage(parent).free < SIZE * 2:
        parent = tmp_path
    if shutil.disk_usage(parent).free < SIZE * 2:
        pytest.skip("no file system here has room for a file of 2 GiB")
    with tempfile.TemporaryDirectory(prefix="portio-", dir=parent) as folder:
        yield Path(folder)


def write_at(path: Path, offset: int, data: bytes) -> None:
    """Write into a file that is open, at an offset."""
    with path.open("r+b") as same:
        same.seek(offset)
        same.write(data)


def test_o11_a_send_over_2_gib(driver: Driver, net: Net, region: mmap.mmap) -> None:
    ours, peer = net.pair(LOCAL)
    key = driver.associate(ours)
    send, end = portio.Send(key, region), portio.Shutdown(key)
    with Background(recv_count, peer) as reader:
        driver.submit(send, end)
        assert driver.wait_for(send, SLOW).result() == SIZE
        driver.wait_for(end).result()
        assert reader.result(SLOW) == SIZE


def test_o11_a_gathered_send_over_2_gib(driver: Driver, net: Net, region: mmap.mmap) -> None:
    """No part is over 2 GiB, the sum is."""
    ours, peer = net.pair(LOCAL)
    key = driver.associate(ours)
    with memoryview(region) as view:
        parts = [view[: 1 << 30], view[1 << 30 :], b"tail"]
        send, end = portio.Send(key, parts), portio.Shutdown(key)
        with Background(recv_count, peer) as reader:
            driver.submit(send, end)
            assert driver.wait_for(send, SLOW).result() == SIZE + 4
            driver.wait_for(end).result()
            assert reader.result(SLOW) == SIZE + 4
        for part in parts[:2]:
            part.release()
        del parts, send


def test_o11_a_receive_into_over_2_gib(driver: Driver, net: Net, region: mmap.mmap) -> None:
    ours, peer = net.pair(LOCAL)
    receive = portio.Recv(driver.associate(ours), region)
    driver.submit(receive)
    peer.sendall(b"a little")
    assert driver.wait_for(receive).result() == 8
    assert region[:9] == b"a little\0"


def test_o11_a_write_and_a_read_over_2_gib(
    make_port: Callable[..., portio.Port], folder: Path, region: mmap.mmap
) -> None:
    """Each in one operation, whole, also where one system call does not do.

    This one moves real memory, so it is not repeated for each driver.
    """
    port = make_port(thread_bound=True)

    def run(operation: portio.Operation[int]) -> int:
        port.submit(operation)
        done = port.get(SLOW)
        assert done is not None
        return done.result()

    with portio.open(folder / "large", "w+") as file:
        key = port.associate(file)
        assert run(portio.Write(key, region, 3)) == SIZE
        assert file.size() == SIZE + 3
        file.truncate(0)
        file.truncate(SIZE - 1)
        write_at(folder / "large", SIZE - 4, b"end")
        assert run(portio.Read(key, region)) == SIZE - 1
        assert region[SIZE - 5 : SIZE] == b"\0end\0"


def test_o11_a_read_that_is_shorter_than_its_2_gib(
    driver: Driver, folder: Path, region: mmap.mmap
) -> None:
    with portio.open(folder / "short", "w+") as file:
        key = driver.associate(file)
        driver.result(portio.Write(key, b"short"))
        assert driver.result(portio.Read(key, region)) == 5
        assert region[:6] == b"short\0"


def test_o11_a_scattered_read_over_2_gib(driver: Driver, folder: Path) -> None:
    """One block of memory, many times over: the sum counts, not the memory."""
    block = bytearray(16 << 20)
    count = 130  # 2080 MiB
    with portio.open(folder / "sparse", "w+") as file:
        make_sparse(file)
        file.truncate(count * len(block))
        write_at(folder / "sparse", count * len(block) - 3, b"end")
        key = driver.associate(file)
        driver.submit(read := portio.Read(key, [block] * count))
        assert driver.wait_for(read, SLOW).result() == count * len(block)
        assert block[-4:] == b"\0end"


def test_o11_a_sendfile_over_2_gib(driver: Driver, net: Net, folder: Path) -> None:
    ours, peer = net.pair(LOCAL)
    key = driver.associate(ours)
    with portio.open(folder / "sparse", "w+") as source:
        make_sparse(source)
        source.truncate(SIZE)
        send, end = portio.SendFile(key, source), portio.Shutdown(key)
        with Background(recv_count, peer) as reader:
            driver.submit(send, end)
            assert driver.wait_for(send, SLOW).result() == SIZE
            driver.wait_for(end).result()
            assert reader.result(SLOW) == SIZE
