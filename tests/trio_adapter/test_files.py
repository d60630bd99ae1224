"""Files do what Python's own do, call by call."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from portio.trio import (
    BinaryFile,
    TextFile,
    TrioPort,
    open_file,
)
from support import handles
from support.handles import is_open
from support.marks import needs_descriptors
from support.net import pattern
from support.system import HAS_FULL, WINDOWS
from support.trio_runs import in_trio

MakePort = Callable[[], AbstractAsyncContextManager[TrioPort]]

TEXT = "".join(f"Zeile {n} - déjà vu 🙂\n" * (n % 3) + "\r\n" * (n % 5 == 0) for n in range(300))


def named_pipe(folder: Path) -> tuple[Path, Callable[[], int]]:
    """A pipe that is opened by its name; and what gives, when it is, its end to write to."""
    if sys.platform == "win32":
        from support import win32

        name, writer = win32.create_named_pipe()
        return Path(name), lambda: writer
    path = folder / "fifo"
    os.mkfifo(path)
    # Opened by both sides at once; this one for reading too, so that it need not wait.
    opened = os.open(path, os.O_RDWR)
    return path, lambda: opened


@pytest.fixture
def wake() -> str:
    """Only the usual way: what is on top of it is what these tests are about."""
    return "descriptor"


class Twins:
    """The same calls to a file of ours and to one of Python's; they must agree."""

    def __init__(self, ours: Any, theirs: Any) -> None:
        self.ours = ours
        self.theirs = theirs

    async def call(self, name: str, *args: Any) -> Any:
        try:
            wanted = getattr(self.theirs, name)(*args)
        except (OSError, ValueError, TypeError) as error:
            with pytest.raises(type(error)):
                await getattr(self.ours, name)(*args)
            return None
        found = await getattr(self.ours, name)(*args)
        if name not in ("tell", "seek") or not isinstance(self.theirs, io.TextIOWrapper):
            assert found == wanted, (name, args)
        return found


@asynccontextmanager
async def twins(port: TrioPort, folder: Path, *args: Any, **options: Any) -> AsyncIterator[Twins]:
    with open(folder / "theirs", *args, **options) as theirs:
        async with await open_file(folder / "ours", *args, on=port, **options) as ours:
            yield Twins(ours, theirs)


def same_bytes(folder: Path) -> bytes:
    data = (folder / "ours").read_bytes()
    assert data == (folder / "theirs").read_bytes()
    return data


@pytest.mark.parametrize("mode", ["rb", "rb+", "wb+", "wb", "ab", "ab+"])
@pytest.mark.parametrize("buffering", [-1, 0, 64])
@in_trio
async def test_binary_files(trio_port: MakePort, tmp_path: Path, mode: str, buffering: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    data = b"".join(b"%d\n" % n * (n % 4) for n in range(3000))
    for name in ("ours", "theirs"):
        (tmp_path / name).write_bytes(data)
    async with trio_port() as port:
        async with twins(port, tmp_path, mode, buffering) as both:
            for name in ("readable", "writable", "seekable", "isatty"):
                assert getattr(both.ours, name)() == getattr(both.theirs, name)()
            if mode != "wb+":  # Python says rb+
                assert both.ours.mode == both.theirs.mode
            size = len(data)
            can_read, can_write = both.theirs.readable(), both.theirs.writable()
            for _ in range(150):
                position = dice.choice((0, dice.randrange(size + 100)))
                calls: list[tuple[Any, ...]] = [
                    ("seek", position),
                    ("seek", -dice.randrange(50), os.SEEK_END),
                    ("tell",),
                    ("read", 0 if not can_read else dice.choice((0, 1, 10, 200, 9000))),
                    ("readline", dice.choice((-1, 3))),
                    ("readlines", dice.choice((100, 1000))),
                ]
                if can_write:
                    # Unlike Python's, a file that appends is not moved by reading.
                    calls += [("write", bytes(dice.randrange(dice.choice((5, 100, 3000)))))] * 2
                    calls += [("writelines", [b"one\n", b"two\n"]), ("flush",)]
                    if "a" not in mode:
                        calls.append(("truncate", dice.randrange(size)))
                if can_read and dice.random() < 0.05:
                    calls = [("read",)]
                name, *arguments = dice.choice(calls)
                if "a" in mode and name in ("write", "writelines"):
                    await both.call("seek", 0, os.SEEK_END)
                await both.call(name, *arguments)
                if "a" in mode and name in ("write", "writelines"):
                    await both.call("flush")
            assert await both.call("tell") is not None
        assert both.ours.closed
        same_bytes(tmp_path)
        with pytest.raises(ValueError, match="closed file"):
            await both.ours.tell()


@pytest.mark.parametrize("newline", [None, "", "\n", "\r", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1", "utf-8-sig", "shift_jis"])
@in_trio
async def test_text_files(
    trio_port: MakePort, tmp_path: Path, newline: str | None, encoding: str
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    async with trio_port() as port:
        options = {"encoding": encoding, "newline": newline, "errors": "replace"}
        async with twins(port, tmp_path, "w", **options) as both:
            for start in range(0, len(TEXT), 1000):
                await both.call("write", TEXT[start : start + 1000])
        data = same_bytes(tmp_path)

        async with twins(port, tmp_path, "r", **options) as both:
            assert await both.call("read")
            assert both.ours.newlines == both.theirs.newlines
            marks: list[tuple[int, int]] = [(0, 0)]
            await both.call("seek", 0)
            for _ in range(120):
                action = dice.randrange(6)
                if action < 2:
                    await both.call("read", dice.choice((0, 1, 5, 300, 5000)))
                elif action < 4:
                    await both.call("readline", *dice.choice(((), (4,), (-1,))))
                elif action == 4:
                    marks.append((await both.ours.tell(), both.theirs.tell()))
                else:
                    our_mark, their_mark = dice.choice(marks)
                    await both.ours.seek(our_mark)
                    both.theirs.seek(their_mark)
            rest = await both.call("readlines")
            assert rest is not None

        async with twins(port, tmp_path, "a+", **options) as both:
            await both.call("write", "added\n")
            await both.call("seek", 0)
            await both.call("readline")
            await both.call("seek", 0, os.SEEK_END)
            await both.call("write", "more\n")
        assert same_bytes(tmp_path).startswith(data)


@in_trio
async def test_lines(trio_port: MakePort, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(TEXT, encoding="utf-8", newline="")
    async with trio_port() as port:
        with open(tmp_path / "file", encoding="utf-8") as theirs:
            wanted = list(theirs)
        async with await open_file(tmp_path / "file", encoding="utf-8", on=port) as file:
            assert isinstance(file, TextFile)
            assert [line async for line in file] == wanted
            # The position is known also while the file is iterated over.
            await file.seek(0)
            async for _ in file:
                position = await file.tell()
                break
            assert await file.readline() == wanted[1]
            await file.seek(position)
            assert await file.readline() == wanted[1]


@in_trio
async def test_text_is_written_as_asked(trio_port: MakePort, tmp_path: Path) -> None:
    path = tmp_path / "file"
    async with trio_port() as port:
        async with await open_file(path, "w", 1, encoding="utf-8", on=port) as file:
            assert file.line_buffering
            assert file.encoding == "utf-8"
            assert file.errors == "strict"
            assert file.mode == "w"
            assert file.name == os.fspath(path)
            await file.write("half ")
            assert path.read_bytes() == b""
            await file.write("line\n")
            assert path.read_bytes() == b"half line" + os.linesep.encode()
            with pytest.raises(UnicodeEncodeError):
                await file.write("\udcff")
            with pytest.raises(TypeError):
                await file.write(b"bytes")  # type: ignore[arg-type]
            with pytest.raises(io.UnsupportedOperation):
                await file.read()
        async with await open_file(path, "r+", encoding="utf-8", on=port) as file:
            assert await file.read(5) == "half "
            await file.write("LINE")  # where the reading has ended
            await file.seek(0)
            assert await file.read() == "half LINE\n"
            assert await file.truncate(4) == 4
            assert await file.seek(0, os.SEEK_END) == 4
            with pytest.raises(io.UnsupportedOperation):
                await file.seek(1, os.SEEK_CUR)


@in_trio
async def test_positional_methods(trio_port: MakePort, tmp_path: Path) -> None:
    async with trio_port() as port:
        file: BinaryFile = await open_file(tmp_path / "file", "wb+", on=port)
        async with file:
            await file.write(b"0123456789")  # pending
            with assert_checkpoints():
                assert await file.read_at(3, 4) == b"3456"
            assert await file.write_at(2, [b"ab", b"", bytearray(b"cd")]) == 4
            one, other = bytearray(3), bytearray(30)
            assert await file.readinto_at(1, [one, other]) == 9
            assert bytes(one + other[:6]) == b"1abcd6789"
            assert await file.tell() == 10
            await file.write(b"end")
            with assert_checkpoints():
                await file.sync()
                await file.sync(data_only=True)
            assert (tmp_path / "file").read_bytes() == b"01abcd6789end"
            assert await file.read_at(1 << 40, 10) == b""
            async with trio.open_nursery() as nursery:
                for number in range(100):  # any number of tasks at once
                    nursery.start_soon(file.write_at, 1000 + number, b"%c" % (number % 10 + 48))
            assert await file.read_at(1000, 1000) == b"0123456789" * 10
            with pytest.raises(ValueError, match="negative"):
                await file.read_at(-1, 1)


@in_trio
async def test_other_ways_to_read(trio_port: MakePort, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data := pattern(300_000))
    async with trio_port() as port:
        file: BinaryFile = await open_file(tmp_path / "file", "rb", on=port)
        async with file:
            buffer = bytearray(100)
            assert await file.readinto(buffer) == 100
            assert buffer == data[:100]
            assert data[100:].startswith(head := await file.peek())
            assert head
            assert await file.tell() == 100
            assert data[100:].startswith(part := await file.read1())
            assert await file.readinto1(buffer) == 100
            assert buffer == data[100 + len(part) : 200 + len(part)]
            assert await file.readall() == data[200 + len(part) :]
            assert await file.read() == await file.read(10) == await file.readline() == b""
            assert await file.peek() == b""


@in_trio
async def test_tasks_take_turns(trio_port: MakePort, tmp_path: Path) -> None:
    lines = [b"%d %s\n" % (number, b"x" * (number % 50)) for number in range(2000)]
    async with trio_port() as port:
        async with await open_file(tmp_path / "file", "wb", 256, on=port) as file:

            async def write(part: list[bytes]) -> None:
                for line in part:
                    await file.write(line)

            async with trio.open_nursery() as nursery:
                for start in range(20):
                    nursery.start_soon(write, lines[start::20])
        assert sorted((tmp_path / "file").read_bytes().splitlines(True)) == sorted(lines)

        found: list[bytes] = []
        async with await open_file(tmp_path / "file", "rb", on=port) as file:

            async def read() -> None:
                async for line in file:
                    found.append(line)

            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(read)
        assert sorted(found) == sorted(lines)


@in_trio
async def test_opening(trio_port: MakePort, tmp_path: Path) -> None:
    async with trio_port() as port:
        path = tmp_path / "file"
        with pytest.raises(FileNotFoundError):
            await open_file(path, on=port)
        with pytest.raises(IsADirectoryError):
            await open_file(tmp_path, "rb", on=port)
        with pytest.raises(IsADirectoryError):
            await open_file(tmp_path, "a", on=port)
        async with await open_file(path, "xb", on=port) as file:
            assert file.mode == "xb"
            assert not file.readable()
            assert is_open(file.fileno())
            await file.write(b"12345")
            assert file.size() == 0
            await file.flush()
            assert file.size() == 5
        with pytest.raises(ValueError, match="closed"):
            file.size()
        with pytest.raises(FileExistsError):
            await open_file(path, "xb", on=port)
        for mode in ("", "rw", "rr", "rbt", "q", "b", "r++"):
            with pytest.raises(ValueError, match="mode"):
                await open_file(path, mode, on=port)
        for options in (
            {"mode": "rb", "encoding": "utf-8"},
            {"mode": "rb", "errors": "strict"},
            {"mode": "rb", "newline": ""},
            {"mode": "r", "buffering": 0},
            {"mode": "r", "newline": "x"},
            {"mode": "rb", "buffering": -2},
            {"closefd": False},
        ):
            with pytest.raises(ValueError):  # noqa: PT011
                await open_file(path, on=port, **options)  # type: ignore[call-overload]
        with pytest.raises(LookupError):
            await open_file(path, encoding="klingon", on=port)
        with pytest.warns(RuntimeWarning, match="line buffering"):
            file = await open_file(path, "rb", 1, on=port)
        await file.aclose()
        await file.aclose()


@needs_descriptors
@in_trio
async def test_descriptors_and_openers(trio_port: MakePort, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")

    def opener(name: str, flags: int) -> int:
        assert name == "any name"
        return os.open(path, flags)

    async with trio_port() as port:
        async with await open_file("any name", "rb", opener=opener, on=port) as file:
            assert not os.get_inheritable(file.fileno())
            assert await file.read() == b"0123456789"
        descriptor = os.open(path, os.O_RDONLY)
        os.lseek(descriptor, 4, os.SEEK_SET)
        async with await open_file(descriptor, "rb", closefd=False, on=port) as file:
            assert await file.read(2) == b"45"
        assert os.read(descriptor, 1) == b"6"  # still open, and where the file was left
        async with await open_file(descriptor, "rb", on=port) as file:
            assert await file.read() == b"789"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


@pytest.mark.skipif(not WINDOWS, reason="the rule is Windows'")
@in_trio
async def test_what_windows_cannot_take(trio_port: MakePort, tmp_path: Path) -> None:
    """The C runtime's descriptors were not opened for overlapped I/O; the error says so."""
    path = tmp_path / "file"
    path.write_bytes(b"untouched")
    async with trio_port() as port:
        with open(path, "rb") as file:
            for mode in ("rb", "r"):
                with pytest.raises(io.UnsupportedOperation, match="descriptor"):
                    await open_file(file.fileno(), mode, on=port)
            assert file.read() == b"untouched"
        with pytest.raises(io.UnsupportedOperation, match="opener"):
            await open_file(path, "rb", opener=os.open, on=port)


@needs_descriptors
@in_trio
async def test_files_that_are_none(trio_port: MakePort, tmp_path: Path) -> None:
    """Pipes and what the system makes up have no size, or no position."""
    async with trio_port() as port:
        async with await open_file("/proc/self/status", on=port) as file:
            assert (await file.readline()).startswith("Name:")
            assert "Pid:" in await file.read()
        reader, writer = os.pipe()
        async with (
            await open_file(reader, "r", encoding="utf-8", on=port) as ours,
            await open_file(writer, "w", encoding="utf-8", on=port) as theirs,
        ):
            assert not ours.seekable()
            with pytest.raises(io.UnsupportedOperation):
                await ours.seek(0)
            await theirs.write("one\ntwo")
            await theirs.flush()
            assert await ours.readline() == "one\n"
            with trio.move_on_after(0.01) as scope:
                await ours.readline()  # there is only half a line
            assert scope.cancelled_caught
            await theirs.write(" and three\n")
            await theirs.aclose()
            assert await ours.read() == "two and three\n"  # nothing was lost


@in_trio
async def test_a_full_disk(trio_port: MakePort) -> None:
    if not HAS_FULL:
        pytest.skip("this system has no /dev/full")
    async with trio_port() as port:
        file: BinaryFile = await open_file("/dev/full", "wb", on=port)
        await file.write(b"x")
        with pytest.raises(OSError, match="No space left"):
            await file.flush()
        with pytest.raises(OSError, match="No space left"):
            await file.aclose()
        assert file.closed


@in_trio
async def test_a_pipe_with_a_name(
    trio_port: MakePort, tmp_path: Path, closing: contextlib.ExitStack
) -> None:
    """It is read as it comes, has no size and no position, and can be closed under a reader."""
    async with trio_port() as port:
        path, writing = named_pipe(tmp_path)
        file: BinaryFile = await open_file(path, "rb", on=port)
        writer = writing()
        closing.callback(handles.close, writer)
        assert not file.seekable()
        for method in (file.seek(0), file.tell()):
            with pytest.raises(io.UnsupportedOperation):
                await method
        handles.write(writer, b"one\ntwo")
        assert await file.readline() == b"one\n"
        with trio.move_on_after(0.01) as scope:
            await file.readline()  # there is only half a line
        assert scope.cancelled_caught
        handles.write(writer, b" and three\n")
        assert await file.readline() == b"two and three\n"  # nothing was lost

        async def read() -> None:
            with pytest.raises(ValueError, match="closed"):
                await file.read(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            await file.aclose()


def test_an_unclosed_file_is_told(backend: str, wake: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with TrioPort(backend=backend) as port:
            file = await open_file(tmp_path / "file", "wb", on=port)
            await file.write(b"lost")
            del file

    with pytest.warns(ResourceWarning) as caught:
        trio.run(main)
        gc.collect()
    assert any("4 bytes were not written" in str(one.message) for one in caught)
