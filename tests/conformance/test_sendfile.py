"""SendFile: a file into a stream, without passing through the program."""

from __future__ import annotations

import errno
import gc
from pathlib import Path
from typing import Any

import pytest

import portio
from support import handles
from support.drivers import Driver
from support.marks import wine_forgets_who_sends
from support.net import STREAMS, Net, fill, pattern, recv_all, recv_exactly
from support.system import LOCAL
from support.threads import Background

DATA = pattern(1_000_003)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with DATA in it."""
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


def send(
    driver: Driver, net: Net, *arguments: Any, family: str = "inet"
) -> tuple[portio.Completion[int], bytes]:
    """The completion of a SendFile, and what the peer received."""
    ours, peer = net.small_pair(family)
    key = driver.associate(ours)
    operation, end = portio.SendFile(key, *arguments), portio.Shutdown(key)
    with Background(recv_all, peer) as reader:
        driver.submit(operation, end)
        done = driver.wait_for(operation)
        driver.wait_for(end).result()
        return done, reader.result()


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o8_a_whole_file(driver: Driver, net: Net, path: Path, family: str) -> None:
    with portio.open(path) as source:
        done, received = send(driver, net, source, family=family)
    assert done.error is None
    assert done.result() == done.nbytes == len(DATA)
    assert received == DATA


@pytest.mark.core
@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, 1), (1, None), (4095, 70_000), (500_000, None), (999_999, 4), (0, len(DATA))],
)
def test_o8_a_part_of_a_file(
    driver: Driver, net: Net, path: Path, offset: int, count: int | None
) -> None:
    expected = DATA[offset:] if count is None else DATA[offset : offset + count]
    with portio.open(path) as source:
        done, received = send(driver, net, source, offset, count)
    assert done.result() == len(expected)
    assert received == expected


def test_o8_the_end_of_the_file_ends_it(driver: Driver, net: Net, path: Path) -> None:
    """More is asked for than there is: what there is goes, and the result says how much."""
    with portio.open(path) as source:
        done, received = send(driver, net, source, 900_000, 10_000_000)
        assert done.result() == len(DATA) - 900_000
        assert received == DATA[900_000:]
        for offset in (len(DATA), len(DATA) + 1, 2**40):
            done, received = send(driver, net, source, offset)
            assert done.result() == 0
            assert received == b""


@pytest.mark.core
def test_o11_nothing_of_a_file(driver: Driver, net: Net, path: Path) -> None:
    with portio.open(path) as source:
        done, received = send(driver, net, source, 10, 0)
    assert done.result() == 0
    assert received == b""
    empty = path.with_name("empty")
    empty.touch()
    with portio.open(empty) as source:
        done, received = send(driver, net, source)
    assert done.result() == 0
    assert received == b""


def test_o11_an_offset_over_4_gib(driver: Driver, net: Net, tmp_path: Path) -> None:
    with portio.open(tmp_path / "sparse", "w+") as source:
        handles.make_sparse(source)
        source.truncate(5 * 2**30 + 7)
        with (tmp_path / "sparse").open("r+b") as same:
            same.seek(5 * 2**30 - 7)
            same.write(b"at the far end")
        done, received = send(driver, net, source, 5 * 2**30 - 7)
        source.truncate(0)
    assert done.result() == 14
    assert received == b"at the far end"


@pytest.mark.parametrize("form", ["File", "descriptor", "file object"])
def test_o1_every_form_of_a_file(driver: Driver, net: Net, path: Path, form: str) -> None:
    with portio.open(path) as own, open(path, "rb") as plain:
        number = handles.of_file(plain)
        source: Any = {"File": own, "descriptor": number, "file object": plain}[form]
        done, received = send(driver, net, source, 0, 5000)
        assert done.result() == 5000
        assert received == DATA[:5000]
        assert plain.tell() == 0  # its position is left alone


def test_o1_an_associated_file_can_be_sent(driver: Driver, net: Net, path: Path) -> None:
    with portio.open(path) as source:
        file_key = driver.associate(source)
        buffer = bytearray(10)
        done, received = send(driver, net, source, 0, 100_000)
        assert done.result() == 100_000
        assert received == DATA[:100_000]
        assert driver.result(portio.Read(file_key, buffer, 5)) == 10
        assert buffer == DATA[5:15]


def test_o1_the_same_file_to_many_peers_at_once(driver: Driver, net: Net, path: Path) -> None:
    pairs = [net.small_pair(LOCAL) for _ in range(6)]
    with portio.open(path) as source:
        keys = [driver.associate(ours) for ours, _ in pairs]
        sends = [portio.SendFile(key, source) for key in keys]
        readers = [Background(recv_exactly, peer, len(DATA)) for _, peer in pairs]
        driver.submit(*sends)
        for done in driver.wait_for_all(sends):
            assert done.result() == len(DATA)
        for reader in readers:
            assert reader.result() == DATA


@wine_forgets_who_sends
def test_o8_the_peer_turns_away(driver: Driver, net: Net, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(8 << 20))
    ours, peer = net.small_pair(LOCAL)
    with portio.open(tmp_path / "source") as source:
        driver.submit(operation := portio.SendFile(driver.associate(ours), source))

        def read_and_turn_away() -> int:
            got = len(recv_exactly(peer, 200_000))
            peer.close()
            return got

        with Background(read_and_turn_away) as reader:
            done = driver.wait_for(operation)
            assert isinstance(done.error, (BrokenPipeError, ConnectionResetError))
            assert reader.result() <= done.nbytes < 8 << 20


@pytest.mark.core
def test_o2_a_source_that_cannot_be_read(driver: Driver, net: Net, path: Path) -> None:
    with portio.open(path, "r+") as source:
        write_only = handles.open_file(path, "w")
        try:
            done, received = send(driver, net, write_only)
        finally:
            handles.close(write_only)
        assert done.error is not None
        assert done.error.errno == errno.EBADF
        assert "SendFile" in str(done.error)
        assert received == b""
        done, received = send(driver, net, source, 0, 10)
        assert received == DATA[:10]


def test_o2_a_source_without_offsets(driver: Driver, net: Net) -> None:
    """A pipe is no file: an error, at once or with the completion."""
    reader, writer = portio.pipe()
    with reader, writer:
        handles.write(writer, b"no source")
        writer.close()
        key = driver.associate(net.pair()[0])
        operation = portio.SendFile(key, reader, 0, 10)
        try:
            driver.submit(operation)
        except (TypeError, ValueError):
            return
        done = driver.wait_for(operation)
        assert isinstance(done.error, OSError)


def test_o6_cancelled_before_it_began(driver: Driver, net: Net, path: Path) -> None:
    ours, peer = net.small_pair()
    filled = fill(ours)
    key = driver.associate(ours)
    with portio.open(path) as source:
        driver.submit(operation := portio.SendFile(key, source))
        driver.cancel(operation)
        done = driver.wait_for(operation)
        assert isinstance(done.error, portio.OperationCancelledError)
        driver.submit(end := portio.Shutdown(key))
        with Background(recv_all, peer) as reader:
            driver.wait_for(end).result()
            assert reader.result()[filled:] == DATA[: done.nbytes]


def test_o3_the_file_object_stays_alive(driver: Driver, net: Net, path: Path) -> None:
    """The operation holds it; nobody else has to."""
    ours, peer = net.small_pair()
    key = driver.associate(ours)
    driver.submit(portio.SendFile(key, open(path, "rb")))  # noqa: SIM115
    gc.collect()
    with Background(recv_exactly, peer, len(DATA)) as reader:
        [done] = driver.take()
        assert done.result() == len(DATA)
        assert reader.result() == DATA
    assert isinstance(done.operation, portio.SendFile)
    done.operation.file.close()  # type: ignore[union-attr]
