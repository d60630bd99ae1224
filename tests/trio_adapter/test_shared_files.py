"""Descriptors that are the program's, tasks that meet in a file, and Ctrl-C."""

from __future__ import annotations

import array
import gc
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from portio.operations import Read, Write
from portio.trio import BinaryFile, TrioPort, open_file
from support.marks import needs_descriptors
from support.net import pattern
from support.system import WINE
from support.trio_runs import in_trio
from support.watch import LIMIT

if sys.platform != "win32":
    import fcntl
    import termios

MakePort = Callable[[], AbstractAsyncContextManager[TrioPort]]

FILES = {
    module.__file__
    for name in ("binary", "buffered", "decoded", "text", "turns")
    if (module := sys.modules.get(f"portio.trio.{name}")) is not None
}


@pytest.fixture
def wake() -> str:
    """Only the usual way: what is on top of it is what these tests are about."""
    return "descriptor"


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    """A descriptor of the program's; a test fails if somebody has closed it."""
    (tmp_path / "file").write_bytes(b"0123456789")
    number = os.open(tmp_path / "file", os.O_RDWR)
    yield number
    os.close(number)


@contextmanager
def interrupted_at(line: int) -> Iterator[list[str]]:
    """Ctrl-C at this line, of those of portio.trio's files that are reached; tells which."""
    left = line
    fired: list[str] = []

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        del argument
        nonlocal left
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line" and not fired:
            left -= 1
            if left < 0:
                fired.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
                signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield fired
    finally:
        sys.settrace(before)


# Ctrl-C


@pytest.mark.parametrize("mode", ["ab+", "a+"])
def test_ctrl_c_at_every_line(backend: str, tmp_path: Path, mode: str) -> None:
    """It comes where a cancellation would: no turn is left taken, nothing is lost or doubled."""
    path = tmp_path / "file"

    async def scenario(line: int) -> bool:
        path.write_bytes(b"")
        taken = b""
        async with TrioPort(backend=backend) as port:
            file: Any = await open_file(path, mode, on=port)
            reached = False
            with interrupted_at(line) as fired:
                try:
                    for word in ("once ", "upon "):
                        await file.write(word if mode == "a+" else word.encode())
                        taken += word.encode()
                    await file.flush()
                    await file.seek(0)
                    await file.read(3)
                    await file.readline()
                    reached = True
                    await trio.lowlevel.checkpoint()
                except KeyboardInterrupt:
                    assert fired
                    reached = False
                else:
                    assert not fired, f"not delivered: {fired}"
            assert not file._turns._taken, fired
            assert not getattr(file, "buffer", file)._turns._taken, fired
            await file.aclose()
        assert path.read_bytes() == taken, fired
        return reached

    # Under Wine a scenario takes a tenth of a second: every tenth line there, others each time.
    step = 10 if WINE else 1
    for line in range(random.randrange(step), 2000, step):
        if trio.run(scenario, line):
            assert line > 50
            return
    pytest.fail("still interrupted")


# Descriptors that are not ours


@needs_descriptors
@in_trio
async def test_a_borrowed_descriptor_outlives_its_file(
    trio_port: MakePort, descriptor: int
) -> None:
    async with trio_port() as port:
        file = await open_file(descriptor, "rb", closefd=False, on=port)
        del file
        gc.collect()
        os.fstat(descriptor)  # the next owner of the number may be anybody
        file = await open_file(descriptor, "rb", closefd=False, on=port)
        port.close()
        await file.aclose()
        del file
        gc.collect()
        os.fstat(descriptor)


@needs_descriptors
@in_trio
async def test_what_was_refused_is_not_closed(trio_port: MakePort, descriptor: int) -> None:
    async with trio_port() as port:
        async with await open_file(descriptor, "rb", closefd=False, on=port) as file:
            for closefd in (True, False):
                with pytest.raises(OSError, match=r"belongs|busy"):
                    await open_file(descriptor, "rb", closefd=closefd, on=port)
                gc.collect()
                assert await file.read_at(0, 2) == b"01"
        with pytest.raises(LookupError):
            await open_file(descriptor, "r", encoding="klingon", closefd=False, on=port)
        async with await open_file(descriptor, "rb", closefd=False, on=port) as file:
            assert await file.read(1) == b"0"


@needs_descriptors
@in_trio
async def test_a_borrowed_pipe_is_given_back_under_a_reader(trio_port: MakePort) -> None:
    async with trio_port() as port:
        reader, writer = os.pipe()
        file: BinaryFile = await open_file(reader, "rb", closefd=False, on=port)

        async def read() -> None:
            with pytest.raises(ValueError, match="closed"):
                await file.read(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            assert port.waiting
            await file.aclose()
            # When it returns nothing is pending any more, and no port has the descriptor.
            assert not port.waiting
            assert file._key.port is None
            os.write(writer, b"x")
            assert os.read(reader, 1) == b"x"
        async with await open_file(reader, "rb", on=port) as file:
            os.close(writer)
            assert await file.read() == b""


@needs_descriptors
@pytest.mark.parametrize("buffering", [-1, 0])
@in_trio
async def test_the_offset_is_shared(
    trio_port: MakePort, descriptor: int, tmp_path: Path, buffering: int
) -> None:
    """As with `print`, before, between and after what we write."""
    async with trio_port() as port:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"a")
        async with await open_file(descriptor, "wb", buffering, closefd=False, on=port) as file:
            await file.write(b"b")
            await file.flush()
            os.write(descriptor, b"c")
            assert await file.tell() == 3
            await file.write(b"d")
        os.write(descriptor, b"e")
        assert (tmp_path / "file").read_bytes() == b"abcde"
        async with await open_file(descriptor, "rb", buffering, closefd=False, on=port) as file:
            await file.seek(1)
            assert await file.read(1) == b"b"
            assert os.read(descriptor, 1) == b"c"
            assert await file.read(1) == b"d"
            await file.seek(-1, os.SEEK_END)
        assert os.read(descriptor, 5) == b"e"


@needs_descriptors
@in_trio
async def test_a_descriptor_that_appends(
    trio_port: MakePort, descriptor: int, tmp_path: Path
) -> None:
    async with trio_port() as port:
        appending = os.open(tmp_path / "file", os.O_WRONLY | os.O_APPEND)
        async with await open_file(appending, "w", encoding="utf-8", on=port) as file:
            await file.write("x")
            await file.flush()
            assert await file.tell() == 11
        assert os.read(descriptor, 20) == b"0123456789x"


# Tasks that meet


@in_trio
async def test_a_write_that_comes_too_late_is_refused(trio_port: MakePort, tmp_path: Path) -> None:
    async with trio_port() as port:
        file: BinaryFile = await open_file(tmp_path / "file", "wb", on=port)
        await file.write(b"in time")
        ends: list[str] = []

        async def late() -> None:
            try:
                await file.write(b"late")
            except ValueError:
                ends.append("refused")
            else:
                ends.append("written")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.aclose)
            # What ends at once may be over before this task is asked again.
            while not file._turns._taken and not file.closed:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(late)
        written = (tmp_path / "file").read_bytes()
        assert (ends, written) == (["refused"], b"in time")
        assert not file._pending


@needs_descriptors
@in_trio
async def test_closing_a_pipe_during_a_flush(trio_port: MakePort) -> None:
    """Who writes comes first; each byte once, and nobody else gets a turn."""
    async with trio_port() as port:
        reader, writer = os.pipe()
        file: BinaryFile = await open_file(writer, "wb", on=port)
        other: BinaryFile = await open_file(reader, "rb", on=port)
        for letter in (b"x", b"y"):
            await file.write(letter * 60_000)
            if letter == b"x":
                await file.flush()  # and then the pipe is nearly full
        refused = False

        async def late() -> None:
            nonlocal refused
            try:
                await file.write(b"late")
            except ValueError:
                refused = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.flush)
            await wait_all_tasks_blocked()
            nursery.start_soon(file.aclose)
            await wait_all_tasks_blocked()
            nursery.start_soon(late)
            await wait_all_tasks_blocked()
            data = await other.read()
        assert data == b"x" * 60_000 + b"y" * 60_000
        assert refused
        await other.aclose()


@in_trio
async def test_written_at_while_reading_ahead(trio_port: MakePort, tmp_path: Path) -> None:
    """A read-ahead that began before a `write_at` and came in after it is not kept."""
    (tmp_path / "file").write_bytes(b"old! old! old!")
    async with trio_port() as port:
        file: BinaryFile = await open_file(tmp_path / "file", "rb+", on=port)
        complete = port.complete
        read_is_late = trio.Event()

        async def late(operation: Any, *args: Any, **options: Any) -> Any:
            done = await complete(operation, *args, **options)
            if isinstance(operation, Read):
                await read_is_late.wait()
            return done

        port.complete = late  # type: ignore[method-assign]
        async with file, trio.open_nursery() as nursery:
            nursery.start_soon(file.read, 1)
            await wait_all_tasks_blocked()
            await file.write_at(5, b"new!")
            read_is_late.set()
            await wait_all_tasks_blocked()
            assert await file.read() == b"ld! new! old!"
        del port.complete


@pytest.mark.parametrize("method", ["read", "read1"])
@in_trio
async def test_written_at_during_a_read_from_memory(
    trio_port: MakePort, tmp_path: Path, method: str
) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    async with trio_port() as port, await open_file(tmp_path / "file", "rb+", on=port) as file:
        assert await file.read(1) == b"0"
        parts = []

        async def read() -> None:
            parts.append(await getattr(file, method)(3))

        for _ in range(20):  # the two start in any order
            await file.seek(1)
            await file.peek()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                nursery.start_soon(file.write_at, 9, b"9")
            assert await file.tell() == 4
        assert set(parts) == {b"123"}


@needs_descriptors
@in_trio
async def test_a_partly_written_text(trio_port: MakePort) -> None:
    """A byte order mark that has been written is not written again."""
    async with trio_port() as port:
        reader, writer = os.pipe()
        async with await open_file(reader, "rb", on=port) as other:
            file = await open_file(writer, "w", encoding="utf-8-sig", on=port)
            with trio.move_on_after(0.05) as scope:
                await file.write("x" * 200_000)  # more than the pipe holds
            assert scope.cancelled_caught
            await file.write("end")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(file.aclose)
                data = await other.read()
            assert data.count("\ufeff".encode()) == 1
            assert data.endswith(b"xend")


@needs_descriptors
@in_trio
async def test_a_full_pipe_keeps_what_is_pending(trio_port: MakePort) -> None:
    """What a cancelled flush has written, and what it has not, is everything, in its order."""
    async with trio_port() as port:
        reader, writer = os.pipe()
        file: BinaryFile = await open_file(writer, "wb", on=port)
        await port.run(Write(file._key, bytes(60_000)))
        data = pattern(60_000)
        await file.write(data)
        # The first page of it fits: the flush is not cancelled before that is in the pipe.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.flush)
            with trio.fail_after(LIMIT):
                while held(reader) == 60_000:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        went = held(reader) - 60_000
        assert 0 < went < 60_000
        assert os.read(reader, 1 << 20) == bytes(60_000) + data[:went]
        async with await open_file(reader, "rb", on=port) as other, trio.open_nursery() as nursery:
            nursery.start_soon(file.aclose)
            assert await other.read() == data[went:]


def held(reader: int) -> int:
    """How many bytes are in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(reader, termios.FIONREAD, count)
    return count[0]
