"""What a file does with pipes, with errors, and with arguments that make no sense."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import assert_checkpoints

from portio.trio import BinaryFile, TextFile, TrioPort, copy_file, open_file, send_file
from support.marks import needs_descriptors
from support.net import pattern
from support.trio_runs import in_trio

MakePort = Callable[[], AbstractAsyncContextManager[TrioPort]]


@pytest.fixture
def wake() -> str:
    """Only the usual way: what is on top of it is what these tests are about."""
    return "descriptor"


# Pipes, of which nothing can be read twice


@needs_descriptors
@pytest.mark.parametrize("buffering", [-1, 0])
@pytest.mark.parametrize("how", ["readall", "readline", "read", "readlines"])
@in_trio
async def test_a_cancelled_read_of_a_pipe(trio_port: MakePort, how: str, buffering: int) -> None:
    """What it had read is read again, once and in order, with what was there before."""
    async with trio_port() as port:
        reader, writer = os.pipe()
        async with await open_file(reader, "rb", buffering, on=port) as file:
            os.write(writer, b"ABCDEFGHIJ\nrest")
            assert await file.readline(5) == b"ABCDE"
            for _ in range(2):
                with trio.move_on_after(0.02) as scope:
                    if how == "readline":
                        scope.cancel()
                    await getattr(file, how)(*((1 << 20,) if how == "read" and buffering else ()))
                assert scope.cancelled_caught
            os.write(writer, b" more")
            os.close(writer)
            assert await file.readall() == b"FGHIJ\nrest more"


@needs_descriptors
@pytest.mark.parametrize("how", ["read", "readline", "readlines"])
@in_trio
async def test_a_cancelled_read_of_text_from_a_pipe(trio_port: MakePort, how: str) -> None:
    async with trio_port() as port:
        reader, writer = os.pipe()
        async with await open_file(reader, "r", encoding="utf-8", on=port) as file:
            os.write(writer, b"one\ntwo\nthree")
            assert await file.read(1) == "o"
            for _ in range(2):
                with trio.move_on_after(0.02) as scope:
                    if how == "readline":
                        scope.cancel()
                    await getattr(file, how)(*((100,) if how == "read" else ()))
                assert scope.cancelled_caught
            os.close(writer)
            assert await file.readlines() == ["ne\n", "two\n", "three"]


@needs_descriptors
@in_trio
async def test_an_unbuffered_pipe_keeps_its_order(trio_port: MakePort) -> None:
    async with trio_port() as port:
        reader, writer = os.pipe()
        async with await open_file(reader, "rb", 0, on=port) as file:
            os.write(writer, b"one\ntwo\n")
            assert await file.readline() == b"one\n"
            assert await file.read(2) == b"tw"
            os.close(writer)
            assert await file.readall() == b"o\n"


@pytest.mark.parametrize("mode", ["rb", "r"])
@in_trio
async def test_cancelled_readlines_have_read_nothing(
    trio_port: MakePort, tmp_path: Path, mode: str
) -> None:
    (tmp_path / "file").write_bytes(b"a line\n" * 100)
    async with trio_port() as port, await open_file(tmp_path / "file", mode, on=port) as file:
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                for _ in range(20):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel)
                await file.readlines()
        assert scope.cancelled_caught
        assert await file.tell() == 0
        assert len(await file.readlines()) == 100


# Bytes that are no text


@pytest.mark.parametrize("how", ["read", "readline", "readlines"])
@in_trio
async def test_undecodable_bytes_are_passed_over(
    trio_port: MakePort, tmp_path: Path, how: str
) -> None:
    bad = b"ab\xffcd\n".ljust(8192, b"x")
    (tmp_path / "file").write_bytes(bad + b"good\n")
    async with trio_port() as port:
        async with await open_file(tmp_path / "file", encoding="utf-8", on=port) as file:
            with pytest.raises(UnicodeDecodeError):
                await getattr(file, how)()
            position = 8192 + 5 * (how == "read")
            assert await file.tell() == position
            assert await file.readline() == ("" if how == "read" else "good\n")
            await file.seek(8192)
            assert await file.read() == "good\n"
        (tmp_path / "file").write_bytes(b"cut \xe2\x82")
        async with await open_file(tmp_path / "file", encoding="utf-8", on=port) as file:
            errors = 0
            for _ in range(3):
                try:
                    assert await getattr(file, how)() in ("", [])
                except UnicodeDecodeError:
                    errors += 1
            assert errors == 1


@needs_descriptors
@in_trio
async def test_undecodable_bytes_of_a_pipe(trio_port: MakePort) -> None:
    """What had been decoded before is there once."""
    async with trio_port() as port:
        reader, writer = os.pipe()
        async with await open_file(reader, "r", encoding="utf-8", on=port) as file:
            os.write(writer, b"abcdefgh\n")
            assert await file.read(3) == "abc"
            os.write(writer, b"\xff")
            os.close(writer)
            with pytest.raises(UnicodeDecodeError):
                await file.read()
            assert await file.read() == "defgh\n"
            assert await file.read() == ""


# Arguments


@pytest.mark.parametrize("buffering", [-1, 0])
@in_trio
async def test_arguments_that_make_no_sense(
    trio_port: MakePort, tmp_path: Path, buffering: int
) -> None:
    """The same errors as Python's, and nothing has changed by them."""
    for name in ("ours", "theirs"):
        (tmp_path / name).write_bytes(b"0123456789")
    calls: list[tuple[str, Any]] = [
        ("seek", (1.5,)),
        ("seek", (-1,)),
        ("seek", (1 << 70,)),
        ("seek", (0, 1.5)),
        ("truncate", (-1,)),
        ("truncate", (1.5,)),
        ("read", (1.5,)),
        ("readline", (1.5,)),
        ("readlines", (1.5,)),
        ("readinto", (b"read-only",)),
        ("readinto", (memoryview(bytearray(8))[::2],)),
        ("write", ("text",)),
    ]
    async with trio_port() as port:
        with open(tmp_path / "theirs", "rb+", buffering) as theirs:
            async with await open_file(tmp_path / "ours", "rb+", buffering, on=port) as ours:
                for number in range(2):
                    for name, arguments in calls:
                        with pytest.raises((OSError, ValueError, TypeError, OverflowError)) as one:
                            getattr(theirs, name)(*arguments)
                        with pytest.raises((OSError, ValueError, TypeError, OverflowError)) as two:
                            await getattr(ours, name)(*arguments)
                        wanted = TypeError if one.type is BufferError else one.type
                        assert issubclass(two.type, wanted), (name, arguments)
                        assert await ours.tell() == theirs.tell() == number
                    with pytest.raises(ValueError, match="whence"):
                        await ours.seek(0, 77)
                    assert await ours.read(1) == theirs.read(1)
        assert (tmp_path / "ours").read_bytes() == b"0123456789"


@needs_descriptors
@in_trio
async def test_a_read_only_buffer_costs_no_data(trio_port: MakePort) -> None:
    async with trio_port() as port:
        reader, writer = os.pipe()
        async with await open_file(reader, "rb", on=port) as file:
            os.write(writer, b"abc")
            for name in ("readinto", "readinto1"):
                with pytest.raises(TypeError, match="written"):
                    await getattr(file, name)(b"...")
            assert await file.read(3) == b"abc"
            os.close(writer)


# Text and its bytes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "shift_jis"])
@pytest.mark.parametrize("newline", [None, "\n"])
@in_trio
async def test_truncate_where_the_text_was_read_to(
    trio_port: MakePort, tmp_path: Path, encoding: str, newline: str | None
) -> None:
    path = tmp_path / "file"
    path.write_bytes("ab\nc\r\nd\n".encode(encoding))
    async with trio_port() as port:
        async with await open_file(path, "r+", encoding=encoding, newline=newline, on=port) as file:
            assert isinstance(file, TextFile)
            assert await file.readline() == "ab\n"
            size = len("ab\n".encode(encoding))
            assert await file.truncate() == size
            assert path.stat().st_size == size
            assert await file.read() == ""  # nothing is left in memory either
            await file.write("new")
            with pytest.raises(OSError, match="Invalid argument"):
                await file.truncate(-1)
        assert path.read_bytes().decode(encoding) == "ab\nnew"


@in_trio
async def test_a_line_that_was_taken_is_written_once(trio_port: MakePort, tmp_path: Path) -> None:
    async with trio_port() as port:
        file = await open_file(tmp_path / "file", "w", 1, encoding="utf-8", on=port)
        flush = file._buffer.flush
        with trio.CancelScope() as scope:

            async def cancelled_flush() -> None:
                scope.cancel()
                await flush()

            file._buffer.flush = cancelled_flush  # type: ignore[method-assign]
            await file.write("once\n")
        assert scope.cancelled_caught
        del file._buffer.flush
        await file.aclose()
        assert (tmp_path / "file").read_text() == "once\n"


# Whole files


@in_trio
async def test_a_copy_that_fails_and_is_cancelled(trio_port: MakePort, tmp_path: Path) -> None:
    """One exception, which says what went wrong, and no group."""
    (tmp_path / "source").write_bytes(pattern(100_000))
    async with trio_port() as port:
        run = port.run
        scope = trio.CancelScope()
        calls = 0

        async def failing(operation: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 3:
                scope.cancel()
                raise OSError(28, "No space left on device")
            return await run(operation)

        port.run = failing  # type: ignore[method-assign]
        with pytest.raises(OSError, match="No space left"), scope:
            await copy_file(tmp_path / "source", tmp_path / "target", block_size=1000, on=port)

        async def cancelled(operation: Any) -> Any:
            scope.cancel()
            return await run(operation)

        port.run = cancelled  # type: ignore[method-assign]
        with trio.CancelScope() as scope, pytest.raises(trio.Cancelled):
            await copy_file(tmp_path / "source", tmp_path / "target", block_size=1000, on=port)
        del port.run


@in_trio
async def test_nothing_to_send_is_a_checkpoint_too(trio_port: MakePort, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    async with trio_port() as port:
        file: BinaryFile = await open_file(tmp_path / "file", "rb", on=port)
        async with file:
            stream, _ = trio.testing.memory_stream_pair()
            with assert_checkpoints():
                assert await send_file(stream, file, 0, 0) == 0


@in_trio
async def test_a_closed_file_says_so(trio_port: MakePort, tmp_path: Path) -> None:
    async with trio_port() as port:
        file: BinaryFile = await open_file(tmp_path / "file", "wb+", on=port)
        await file.aclose()
        for name, arguments in (
            ("read", ()),
            ("readlines", ()),
            ("readinto", (bytearray(1),)),
            ("write", (b"",)),
            ("truncate", (0,)),
            ("seek", (0,)),
        ):
            with pytest.raises(ValueError, match="closed") as caught:
                await getattr(file, name)(*arguments)
            assert caught.type is not io.UnsupportedOperation
