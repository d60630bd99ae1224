"""Read, Write and Sync at an offset (O7, O8 and O11 of files), and portio.open."""

from __future__ import annotations

import array
import errno
import gc
import mmap
import os
import stat
from pathlib import Path
from typing import Any

import pytest

import portio
from support import handles
from support.children import run_script
from support.drivers import Driver
from support.handles import make_sparse
from support.marks import needs_resource_limits
from support.net import pattern
from support.system import WINDOWS

DATA = pattern(100_003)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with DATA in it."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def key(driver: Driver, path: Path, closing: Any) -> portio.CompletionKey:
    """The key of that file, open for reading and writing."""
    return driver.associate(closing.enter_context(portio.open(path, "r+")), "the file")


def read_all(driver: Driver, key: portio.CompletionKey, count: int, offset: int = 0) -> bytes:
    buffer = bytearray(count)
    return bytes(buffer[: driver.result(portio.Read(key, buffer, offset))])


@pytest.mark.core
@pytest.mark.parametrize("offset", [0, 1, 4095, 4096, 50_000])
def test_o8_a_read_fills_its_buffer(driver: Driver, key: portio.CompletionKey, offset: int) -> None:
    buffer = bytearray(b"\xaa" * 5000)
    done = driver.run(portio.Read(key, memoryview(buffer)[:4999], offset))
    assert done.error is None
    assert done.nbytes == done.result() == 4999
    assert done.key is key
    assert buffer == DATA[offset : offset + 4999] + b"\xaa"


def test_o8_a_read_is_short_only_at_the_end(driver: Driver, key: portio.CompletionKey) -> None:
    assert read_all(driver, key, 1000, 100_000) == DATA[100_000:]
    assert read_all(driver, key, 200_000) == DATA
    assert read_all(driver, key, len(DATA)) == DATA


@pytest.mark.core
def test_o7_the_end_of_a_file(driver: Driver, key: portio.CompletionKey) -> None:
    """Success with 0 bytes, at the end and anywhere beyond it."""
    for offset in (len(DATA), len(DATA) + 1, 10**9, 2**62):
        done = driver.run(portio.Read(key, bytearray(16), offset))
        assert done.error is None
        assert done.result() == 0
    assert driver.result(portio.Read(key, [bytearray(4), bytearray(4)], len(DATA))) == 0


def test_o7_an_empty_file(driver: Driver, tmp_path: Path) -> None:
    with portio.open(tmp_path / "empty", "w+") as file:
        key = driver.associate(file)
        assert driver.result(portio.Read(key, bytearray(16))) == 0
        assert driver.result(portio.Write(key, b"grown")) == 5
        assert read_all(driver, key, 16) == b"grown"


@pytest.mark.core
def test_o8_writes_go_where_they_should(
    driver: Driver, key: portio.CompletionKey, path: Path
) -> None:
    writes = [portio.Write(key, b"<%d>" % n, n * 1000) for n in range(50)]
    driver.submit(*writes)
    for done in driver.wait_for_all(writes):
        assert done.result() == done.nbytes == len(done.operation.buffer)
    expected = bytearray(DATA)
    for n in range(50):
        expected[n * 1000 : n * 1000 + len(b"<%d>" % n)] = b"<%d>" % n
    assert path.read_bytes() == expected


def test_o8_a_write_beyond_the_end_leaves_a_hole(
    driver: Driver, key: portio.CompletionKey, path: Path
) -> None:
    assert driver.result(portio.Write(key, b"far", 300_000)) == 3
    assert path.read_bytes() == DATA + bytes(300_000 - len(DATA)) + b"far"


@pytest.mark.core
def test_o8_large_transfers_are_whole(driver: Driver, tmp_path: Path) -> None:
    data = pattern(24 << 20)
    with portio.open(tmp_path / "large", "w+") as file:
        key = driver.associate(file)
        assert driver.result(portio.Write(key, data)) == len(data)
        assert file.size() == len(data)
        buffer = bytearray(len(data) + 10)
        assert driver.result(portio.Read(key, buffer)) == len(data)
        assert buffer == data + bytes(10)


def test_o8_many_reads_and_writes_in_flight(driver: Driver, tmp_path: Path) -> None:
    """A copy with many blocks under way, in no particular order."""
    block, count = 8191, 200
    data = pattern(block * count)
    (tmp_path / "source").write_bytes(data)
    with (
        portio.open(tmp_path / "source") as source,
        portio.open(tmp_path / "target", "x") as target,
    ):
        source_key, target_key = driver.associate(source), driver.associate(target)
        reads = [portio.Read(source_key, bytearray(block), n * block) for n in range(count)]
        driver.submit(*reads)
        writes = []
        for done in driver.take(count):
            read = done.operation
            assert isinstance(read, portio.Read)
            assert done.result() == block
            driver.submit(write := portio.Write(target_key, read.buffer, read.offset))
            writes.append(write)
        for done in driver.wait_for_all(writes):
            assert done.result() == block
    assert (tmp_path / "target").read_bytes() == data


@pytest.mark.core
def test_o11_offsets_over_4_gib(driver: Driver, tmp_path: Path) -> None:
    offsets = (2**31 - 2, 2**31 + 40, 2**32 - 2, 2**32 + 40, 5 * 2**30, 2**40)
    path = tmp_path / "sparse"
    with portio.open(path, "w+") as file:
        make_sparse(file)
        key = driver.associate(file)
        for offset in offsets:
            try:
                file.truncate(offset + 100)
            except OSError as error:
                assert error.errno == errno.EFBIG
                pytest.skip(f"the file system has no files of {offset} bytes")
            assert driver.result(portio.Write(key, b"%d" % offset, offset)) == len(str(offset))
        for offset in offsets:
            assert read_all(driver, key, len(str(offset)), offset) == b"%d" % offset
        with path.open("rb") as same:
            for offset in offsets:
                same.seek(offset)
                assert same.read(len(str(offset))) == b"%d" % offset
            same.seek(40)
            assert same.read(4) == bytes(4)  # nothing landed at offset % 2**32
        file.truncate(0)


def test_o11_vectored_at_an_offset(driver: Driver, key: portio.CompletionKey, path: Path) -> None:
    assert driver.result(portio.Write(key, [b"ab", b"", b"cde"], 11)) == 5
    assert path.read_bytes()[11:16] == b"abcde"
    buffers = [bytearray(3), bytearray(), bytearray(5)]
    assert driver.result(portio.Read(key, buffers, 10)) == 8
    assert b"".join(buffers) == DATA[10:11] + b"abcde" + DATA[16:18]
    buffers = [bytearray(2), bytearray(4)]  # the end comes in the second
    assert driver.result(portio.Read(key, buffers, len(DATA) - 3)) == 3
    assert b"".join(buffers) == DATA[-3:] + bytes(3)


@pytest.mark.skipif(WINDOWS, reason="a file opened for overlapped I/O has no position")
def test_o1_the_position_of_the_file_is_left_alone(driver: Driver, tmp_path: Path) -> None:
    with open(tmp_path / "plain", "wb+", buffering=0) as plain:
        plain.write(b"0123456789")
        plain.seek(4)
        key = driver.associate(plain)
        assert read_all(driver, key, 3, 1) == b"123"
        assert driver.result(portio.Write(key, b"x", 9)) == 1
        assert plain.tell() == 4
        assert plain.read() == b"45678x"
        driver.let_go(key)


@pytest.mark.core
def test_o1_sync(driver: Driver, key: portio.CompletionKey) -> None:
    driver.result(portio.Write(key, b"durable"))
    assert driver.result(portio.Sync(key)) is None
    done = driver.run(portio.Sync(key, data_only=True))
    assert done.error is None
    assert done.nbytes == 0
    assert portio.Sync(key, True).data_only is True


def test_o2_sync_of_what_cannot_be_synced(driver: Driver) -> None:
    reader, writer = portio.pipe()
    with reader, writer:
        sync = portio.Sync(driver.associate(writer))
        try:
            driver.submit(sync)
        except (ValueError, TypeError):
            return
        assert isinstance(driver.wait_for(sync).error, OSError)


@pytest.mark.core
def test_o10_the_mode_of_the_file_counts(driver: Driver, path: Path) -> None:
    with portio.open(path) as read_only, portio.open(path, "r+") as both:
        done = driver.run(portio.Write(driver.associate(read_only), b"x"))
        assert done.error is not None
        assert done.error.errno == errno.EBADF
        assert done.nbytes == 0
        assert driver.result(portio.Write(driver.associate(both), b"x")) == 1
    with portio.open(path, "w") as write_only:
        done = driver.run(portio.Read(driver.associate(write_only), bytearray(1)))
        assert done.error is not None
        assert done.error.errno == errno.EBADF


@pytest.mark.skipif(WINDOWS, reason="Windows has no device that is always full")
def test_o8_a_full_device(driver: Driver) -> None:
    """/dev/full: an error that says that nothing was written."""
    try:
        fd = os.open("/dev/full", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"this system has no /dev/full: {error}")
    try:
        key = driver.associate(fd)
        done = driver.run(portio.Write(key, b"x" * 100))
        assert done.error is not None
        assert done.error.errno == errno.ENOSPC
        assert done.nbytes == 0
        driver.let_go(key)
    finally:
        os.close(fd)


@pytest.mark.skipif(WINDOWS, reason="Windows has no such device: see test_windows.py for NUL")
def test_o1_devices_without_offsets(driver: Driver) -> None:
    try:
        fd = os.open("/dev/zero", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"this system has no /dev/zero: {error}")
    try:
        key = driver.associate(fd)
        buffer = bytearray(b"\xaa" * 4096)
        assert driver.result(portio.Read(key, buffer)) >= 1
        assert buffer[:1] == b"\0"
        assert driver.result(portio.Write(key, b"gone")) == 4
        driver.let_go(key)
    finally:
        os.close(fd)


FILE_LIMIT = """
    import errno, os, resource, sys, portio
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    bound = sys.argv[2] == "thread_bound"
    with portio.Port(backend=sys.argv[1], thread_bound=bound) as port:
        with portio.open(sys.argv[3], "w+") as file:
            key = port.associate(file)
            for buffer in (bytes(1_500_000), [bytes(500_000)] * 3):
                port.submit(portio.Write(key, buffer))
                done = port.get(30)
                assert done.error.errno == errno.EFBIG, done
                assert done.nbytes == 1_000_000, done
                assert os.fstat(file.fileno()).st_size == 1_000_000
            port.submit(portio.Write(key, b"fits", 10))
            assert port.get(30).result() == 4
    print("well")
"""


@needs_resource_limits
@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_o8_an_error_in_the_middle_says_how_many_bytes_were_written(
    backend: str, kind: str, tmp_path: Path
) -> None:
    assert run_script(FILE_LIMIT, backend, kind, tmp_path / "limited") == "well\n"


def test_o1_other_buffers_than_bytes(driver: Driver, key: portio.CompletionKey, path: Path) -> None:
    numbers = array.array("q", range(100))
    assert driver.result(portio.Write(key, numbers)) == 800
    assert path.read_bytes()[:800] == numbers.tobytes()
    back = array.array("q", bytes(800))
    assert driver.result(portio.Read(key, back)) == 800
    assert back == numbers


def test_o1_fields_and_defaults(key: portio.CompletionKey) -> None:
    read = portio.Read(key, buffer := bytearray(4))
    assert (read.key, read.offset) == (key, 0)
    assert read.buffer is buffer
    write = portio.Write(key, b"x", offset=7)
    assert (write.buffer, write.offset) == (b"x", 7)
    assert not read.pending


# portio.open


@pytest.mark.parametrize("mode", ["r", "rb", "r+", "r+b", "rb+"])
def test_k1_open_keeps_what_is_there(driver: Driver, path: Path, mode: str) -> None:
    with portio.open(path, mode) as file:
        assert file.size() == len(DATA)
        assert file.name == path or file.name == str(path)
        assert file.fileno() >= 0
        assert not file.closed
        assert not handles.get_inheritable(file.fileno())
        assert read_all(driver, driver.associate(file), 10) == DATA[:10]
    assert file.closed
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.fileno()
    with pytest.raises(ValueError, match="closed"):
        file.size()


@pytest.mark.parametrize("mode", ["w", "w+", "wb"])
def test_k1_open_empties_what_is_to_be_written(path: Path, mode: str) -> None:
    with portio.open(path, mode) as file:
        assert file.size() == 0


@pytest.mark.parametrize("mode", ["x", "x+", "xb"])
def test_k1_open_creates_exclusively(driver: Driver, tmp_path: Path, mode: str) -> None:
    with portio.open(tmp_path / "new", mode) as file:
        assert driver.result(portio.Write(driver.associate(file), b"new")) == 3
    assert (tmp_path / "new").read_bytes() == b"new"
    with pytest.raises(FileExistsError):
        portio.open(tmp_path / "new", mode)


def test_k1_open_takes_every_form_of_path_and_permissions(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        for form in (str, Path, os.fsencode):
            path: Any = form(tmp_path / form.__name__)
            with portio.open(path, "w", permissions=0o640):
                pass
            assert stat.S_IMODE(os.stat(path).st_mode) == (0o666 if WINDOWS else 0o640)
        with portio.open(tmp_path / "default", "w"):
            pass
        mode = stat.S_IMODE(os.stat(tmp_path / "default").st_mode)
        assert mode == (0o666 if WINDOWS else 0o644)
    finally:
        os.umask(umask)


def test_k1_truncate(tmp_path: Path) -> None:
    with portio.open(tmp_path / "file", "w+") as file:
        for size in (100, 10, 0, 2**33):
            file.truncate(size)
            assert file.size() == size
        with pytest.raises((ValueError, OSError)):
            file.truncate(-1)
        file.truncate(0)


def test_k1_a_file_forgotten_open_warns(path: Path) -> None:
    with pytest.warns(ResourceWarning):
        portio.open(path)
        gc.collect()


# Past the cache


BLOCK = 4096


@pytest.fixture
def direct(driver: Driver, path: Path, closing: Any) -> portio.CompletionKey:
    """The key of a file with DATA in it, opened with ``direct=True``."""
    try:
        file = closing.enter_context(portio.open(path, "r+", direct=True))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        pytest.skip("the file system of the temporary files has no direct I/O")
    assert file.direct
    return driver.associate(file)


@pytest.mark.core
def test_o8_direct_transfers(driver: Driver, direct: portio.CompletionKey, path: Path) -> None:
    with mmap.mmap(-1, 4 * BLOCK) as memory:
        assert driver.result(portio.Read(direct, memory, 2 * BLOCK)) == 4 * BLOCK
        assert memory[:] == DATA[2 * BLOCK : 6 * BLOCK]
        memory[:] = bytes(reversed(memory[:]))
        assert driver.result(portio.Write(direct, memory, 8 * BLOCK)) == 4 * BLOCK
        driver.result(portio.Sync(direct))
        written = path.read_bytes()
        assert written[: 8 * BLOCK] == DATA[: 8 * BLOCK]
        assert written[8 * BLOCK : 12 * BLOCK] == DATA[2 * BLOCK : 6 * BLOCK][::-1]
        assert written[12 * BLOCK :] == DATA[12 * BLOCK :]


def test_o8_o7_the_end_of_a_direct_file(driver: Driver, direct: portio.CompletionKey) -> None:
    """Its last block is not whole, and a read may not go on behind it."""
    start = len(DATA) // BLOCK * BLOCK
    with mmap.mmap(-1, 4 * BLOCK) as memory, memoryview(memory) as view:
        for offset in (start, start - BLOCK):
            done = driver.run(portio.Read(direct, memory, offset))
            assert done.error is None
            assert done.result() == len(DATA) - offset
            assert memory[: done.nbytes] == DATA[offset:]
        vectors = [view[:BLOCK], view[BLOCK : 2 * BLOCK], view[2 * BLOCK :]]
        assert (
            driver.result(portio.Read(direct, vectors, start - BLOCK)) == len(DATA) - start + BLOCK
        )
        assert memory[: len(DATA) - start + BLOCK] == DATA[start - BLOCK :]
        assert driver.result(portio.Read(direct, memory, start + BLOCK)) == 0
        vectors.clear()


def test_o2_a_direct_transfer_of_no_whole_blocks(
    driver: Driver, direct: portio.CompletionKey
) -> None:
    """Is refused, but for file systems that can do it all the same."""
    with mmap.mmap(-1, 2 * BLOCK) as memory, memoryview(memory) as view:
        for buffer, offset in ((view[:BLOCK], 100), (view[100 : 100 + BLOCK], 0), (view[:100], 0)):
            done = driver.run(portio.Read(direct, buffer, offset))
            if done.error is not None:
                assert done.error.errno == errno.EINVAL
                assert done.nbytes == 0
            else:
                assert buffer == DATA[offset : offset + len(buffer)]
            del done
            buffer.release()


def test_an_open_file_knows_whether_it_is_direct(path: Path) -> None:
    with portio.open(path) as file:
        assert not file.direct
