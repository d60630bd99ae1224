"""Whole files: from file to file, and from a file into a stream."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from portio.trio import (
    BinaryFile,
    SocketStream,
    TrioPort,
    copy_file,
    open_file,
    open_pipe,
    send_file,
)
from support.net import Net, pattern
from support.system import HAS_FULL
from support.trio_runs import in_trio, until_full

MakePort = Callable[[], AbstractAsyncContextManager[TrioPort]]


@pytest.fixture
def wake() -> str:
    """Only the usual way: what is on top of it is what these tests are about."""
    return "descriptor"


@pytest.mark.parametrize("size", [0, 1, 4096, 1_000_001])
@in_trio
async def test_copy_file(trio_port: MakePort, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(pattern(size))
    target.write_bytes(b"old" * 1000)
    async with trio_port() as port:
        with assert_checkpoints():
            assert await copy_file(source, target, block_size=4096, on=port) == size
        assert target.read_bytes() == pattern(size)
        with pytest.raises(shutil.SameFileError):
            await copy_file(source, source, on=port)
        with pytest.raises(FileNotFoundError):
            await copy_file(tmp_path / "none", target, on=port)
        if HAS_FULL and size:
            with pytest.raises(OSError, match="No space left"):
                await copy_file(source, "/dev/full", on=port)


@pytest.mark.parametrize("kind", ["socket", "other"])
@in_trio
async def test_send_file(trio_port: MakePort, tmp_path: Path, net: Net, kind: str) -> None:
    (tmp_path / "file").write_bytes(data := pattern(1_000_000))
    async with trio_port() as port:
        file: BinaryFile = await open_file(tmp_path / "file", "rb+", on=port)
        stream: trio.abc.SendStream
        if kind == "socket":
            (ours, peer) = net.pair()
            stream = SocketStream(ours, on=port)
        else:
            stream, receiver = open_pipe(on=port)
        received = bytearray()

        async def receive() -> None:
            if kind == "socket":
                while chunk := await trio.to_thread.run_sync(peer.recv, 65536):
                    received.extend(chunk)
            else:
                async with receiver:
                    async for chunk in receiver:
                        received.extend(chunk)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with assert_checkpoints():
                assert await send_file(stream, file) == 1_000_000
            assert await send_file(stream, file, 10, 20) == 20
            assert await send_file(stream, file, 999_990, 20) == 10
            assert await send_file(stream, file, 2_000_000) == 0
            await file.write(b"NEW")
            assert await send_file(stream, file, 0, 5) == 5
            with pytest.raises(ValueError, match="negative"):
                await send_file(stream, file, -1)
            if kind == "other":
                with pytest.raises(TypeError, match="open_file"):
                    await send_file(stream, file.fileno())
            await stream.aclose()
        assert received == data + data[10:30] + data[-10:] + b"NEW" + data[3:5]
        await file.aclose()


@pytest.mark.parametrize("ended", ["stream", "port"])
@in_trio
async def test_send_file_into_what_was_closed(
    trio_port: MakePort, tmp_path: Path, net: Net, ended: str
) -> None:
    """By its port, or behind the stream's back: it is closed, and nothing else."""
    (tmp_path / "file").write_bytes(pattern(10 * 1024 * 1024))
    async with trio_port() as port, trio_port() as files:
        file = await open_file(tmp_path / "file", "rb", on=files)
        ours, _ = net.small_pair()
        stream = SocketStream(ours, on=port)

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await send_file(stream, file)

        if ended == "stream":
            stream.socket.close()
            with assert_checkpoints():
                await send()
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                await trio.testing.wait_all_tasks_blocked()
                port.port.close()
        await stream.aclose()
        await file.aclose()


@in_trio
async def test_send_file_to_a_stream_that_fails(
    trio_port: MakePort, tmp_path: Path, net: Net
) -> None:
    (tmp_path / "file").write_bytes(bytes(8 << 20))
    async with trio_port() as port:
        ours, peer = net.small_pair()
        async with (
            SocketStream(ours, on=port) as stream,
            await open_file(tmp_path / "file", "rb", on=port) as file,
            trio.open_nursery() as nursery,
        ):

            async def send() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await send_file(stream, file)

            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await stream.send_all(b"x")
            # Not while the send goes on: Wine 8 forgets one that it is about to repeat when
            # the connection ends.
            await until_full(stream.socket)
            peer.close()
        with pytest.raises(trio.ClosedResourceError):
            await send_file(stream, 0)
