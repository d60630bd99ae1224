"""O18 registered buffers: memory that the system knows, and nothing else is different."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portio
from portio import backends
from portio.backends import switches
from support.children import run_script
from support.drivers import Driver
from support.marks import needs_fork, needs_resource_limits
from support.net import Net, pattern
from support.threads import Background
from support.watch import LIMIT, eventually

MakePort = Callable[..., portio.Port]

PAGE = mmap.PAGESIZE
DATA = pattern(8 * PAGE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with DATA in it."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def key(driver: Driver, path: Path, closing: Any) -> portio.CompletionKey:
    """The key of that file, open for reading and writing."""
    return driver.associate(closing.enter_context(portio.open(path, "r+")))


def register(driver: Driver, buffer: Any) -> portio.RegisteredBuffer:
    return driver.call(portio.RegisteredBuffer, driver.port, buffer)


def is_known(backend: str) -> bool:
    """Whether this backend registers buffers, and was not told to do without."""
    switched_off = "no-registered_buffers" in os.environ.get(switches.VARIABLE, "")
    return "registered_buffers" in backends.available()[backend].features and not switched_off


def only_where_known(backend: str) -> None:
    if not is_known(backend):
        pytest.skip(f"{backend} has no registered buffers here")


@pytest.mark.core
@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (PAGE, 3 * PAGE),  # all of it
        (PAGE, PAGE + 1),
        (3 * PAGE - 1, 3 * PAGE),
        (PAGE + 7, 2 * PAGE + 9),
        (PAGE - 1, PAGE + 1),  # what is not in it, or not all
        (3 * PAGE - 1, 3 * PAGE + 1),
        (0, 4 * PAGE),
        (0, PAGE),
        (3 * PAGE, 4 * PAGE),
    ],
)
def test_o18_transfers(
    driver: Driver, key: portio.CompletionKey, path: Path, begin: int, end: int
) -> None:
    """In the memory, at its edges and beside it, they do what they do without."""
    memory = bytearray(b"\xaa" * 4 * PAGE)
    with memoryview(memory) as view:
        registered = register(driver, view[PAGE : 3 * PAGE])
        done = driver.run(portio.Read(key, view[begin:end], 5))
        assert done.result() == done.nbytes == end - begin
        expected = bytearray(b"\xaa" * 4 * PAGE)
        expected[begin:end] = DATA[5 : 5 + end - begin]
        assert memory == expected
        view[begin:end] = bytes(reversed(view[begin:end]))
        assert driver.result(portio.Write(key, view[begin:end], PAGE + 3)) == end - begin
        written = bytearray(DATA)
        written[PAGE + 3 : PAGE + 3 + end - begin] = memory[begin:end]
        assert path.read_bytes() == written
        driver.call(registered.close)
        del done  # which has a part of the view
    gc.collect()
    memory.append(0)


@pytest.mark.core
def test_o18_whether_it_is_known(driver: Driver, backend: str) -> None:
    registered = register(driver, bytearray(1))
    assert registered.port is driver.port
    if is_known(backend):
        assert registered.error is None
        assert registered.active
    else:
        assert isinstance(registered.error, portio.NotSupportedError)
        assert not registered.active
        assert "inactive" in repr(registered)
    driver.call(registered.close)
    assert not registered.active
    driver.call(registered.close)


@pytest.mark.core
def test_o18_the_memory_stays(driver: Driver) -> None:
    memory = bytearray(10)
    for end in ("close", "drop"):
        registered = register(driver, memory)
        with pytest.raises(BufferError):
            memory.append(0)
        if end == "close":
            driver.call(registered.close)
        else:
            del registered
            gc.collect()
        memory.append(0)


@pytest.mark.core
def test_o18_closed_with_operations_in_it(driver: Driver, key: portio.CompletionKey) -> None:
    memory = bytearray(8 * PAGE)
    with memoryview(memory) as view:
        registered = register(driver, view)
        reads = [portio.Read(key, view[at : at + PAGE], at) for at in range(0, 8 * PAGE, PAGE)]
        driver.submit(*reads)
        driver.call(registered.close)
        other = register(driver, bytearray(PAGE))  # in its place
        assert [done.result() for done in driver.wait_for_all(reads)] == [PAGE] * 8
        for read in reads:
            read.buffer = b""
        driver.call(other.close)
    assert memory == DATA


@pytest.mark.core
def test_o18_not_files(driver: Driver, net: Net) -> None:
    """Sockets take no notice."""
    ours, peer = net.pair()
    key = driver.associate(ours)
    memory = bytearray(b"question")
    registered = register(driver, memory)
    assert driver.result(portio.Send(key, memory)) == 8
    assert peer.recv(8) == b"question"
    peer.sendall(b"answers!")
    assert driver.result(portio.Recv(key, memory)) == 8
    assert memory == b"answers!"
    driver.call(registered.close)


def test_o18_lazily_submitted(make_port: MakePort, path: Path) -> None:
    """What was not handed over when its memory was forgotten."""
    port = make_port(thread_bound=True, lazy_submit=True)
    memories = [bytearray(PAGE) for _ in range(3)]
    with portio.open(path) as file:
        key = port.associate(file)
        for turn in range(100):
            memory = memories[turn % 3]
            with portio.RegisteredBuffer(port, memory):
                port.submit(portio.Read(key, memory, turn % 7 * PAGE))
            with portio.RegisteredBuffer(port, memories[(turn + 1) % 3]):
                done = port.get(LIMIT)
            assert done is not None
            assert done.result() == PAGE
            assert memory == DATA[turn % 7 * PAGE :][:PAGE]
        key.close()


def test_o18_the_system_uses_it(make_port: MakePort, backend: str, path: Path) -> None:
    """Pages that were exchanged behind its back: the known ones are read into."""
    only_where_known(backend)
    port = make_port()
    memory = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    nothing = bytes(PAGE)
    memory[:] = nothing
    registered = portio.RegisteredBuffer(port, memory)
    with portio.open(path) as file:
        read = portio.Read(port.associate(file), memory)
        for known in (True, False):
            memory.madvise(mmap.MADV_DONTNEED)
            port.submit(read)
            done = port.get(LIMIT)
            assert done is not None
            assert done.result() == PAGE
            assert memory[:] == (nothing if known else DATA[:PAGE])
            registered.close()


def pinned() -> int:
    """The pages of this process that the system holds, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmPin:"):
            return int(line.split()[1])
    raise AssertionError("no VmPin")


def test_o18_until_the_last_has_left(make_port: MakePort, backend: str, path: Path) -> None:
    """What is closed is held while an operation is in it, and given back then."""
    only_where_known(backend)
    port = make_port(thread_bound=True, lazy_submit=True)
    memory = mmap.mmap(-1, 256 * PAGE)
    size = len(memory) // 1024
    with portio.open(path) as file:
        key = port.associate(file)
        eventually(lambda: pinned() == 0, "the pages of other tests are given back")
        first = portio.RegisteredBuffer(port, memory)
        assert pinned() == size
        read = portio.Read(key, memoryview(memory)[: len(DATA)])
        port.submit(read)  # it waits for the next get
        first.close()
        assert pinned() == size
        done = port.get(LIMIT)
        assert done is not None
        assert done.result() == len(DATA)
        eventually(lambda: pinned() == 0, "the pages are given back")
        with portio.RegisteredBuffer(port, memory):
            port.submit(read)
            done = port.get(LIMIT)
            assert done is not None
            assert pinned() == size
        eventually(lambda: pinned() == 0, "the pages are given back")
        key.close()
    assert memory[: len(DATA)] == DATA


@pytest.mark.parametrize("bound", [False, True], ids=["shared", "thread_bound"])
def test_o18_past_the_cache(make_port: MakePort, tmp_path: Path, *, bound: bool) -> None:
    """Transfers that are under way while their memory is registered, and forgotten."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    block = 64 * 1024
    content = random.Random(1).randbytes(40 * block)
    path = tmp_path / "blocks"
    path.write_bytes(content)
    try:
        file = portio.open(path, direct=True)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        pytest.skip("this file system has no direct I/O")
    port = make_port(thread_bound=bound)
    memory = memoryview(mmap.mmap(-1, 8 * block))
    with file:
        key = port.associate(file)
        reads = [portio.Read(key, memory[at * block :][:block]) for at in range(8)]
        known: list[portio.RegisteredBuffer] = []
        for _ in range(40):
            if dice.randrange(2):
                first, last = sorted(dice.sample(range(9), 2))
                known.append(portio.RegisteredBuffer(port, memory[first * block : last * block]))
            for at, read in enumerate(reads):
                memory[at * block : (at + 1) * block] = bytes(block)
                read.offset = dice.randrange(41) * block  # the last is the end of the file
            port.submit(*reads)
            if dice.randrange(2):
                reads[dice.randrange(8)].cancel()
            while known and dice.randrange(2):
                known.pop(dice.randrange(len(known))).close()
            for _ in reads:
                done = port.get(LIMIT)
                assert done is not None
                read = done.operation
                if isinstance(done.error, portio.OperationCancelledError):
                    continue
                assert isinstance(read, portio.Read)
                expected = content[read.offset :][:block]
                assert done.result() == len(expected)
                assert memoryview(read.buffer)[: len(expected)] == expected  # type: ignore[arg-type]
        for each in known:
            each.close()
        key.close()


def test_o18_a_destructor_that_was_interrupted(
    make_port: MakePort, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system may know stays in place, or somebody else's memory would be read into."""
    only_where_known(backend)
    port = make_port()
    memory = bytearray(1)
    registered = portio.RegisteredBuffer(port, memory)
    with monkeypatch.context() as patch:
        patch.setattr(portio.RegisteredBuffer, "__del__", lambda _: None)
        del registered
        gc.collect()
    with pytest.raises(BufferError):
        memory.append(0)


def test_o18_no_place_left(make_port: MakePort, backend: str) -> None:
    only_where_known(backend)
    port = make_port()
    memory = bytearray(100)
    places = [portio.RegisteredBuffer(port, memory) for _ in range(64)]
    assert all(each.active for each in places)
    one_more = portio.RegisteredBuffer(port, memory)
    assert not one_more.active
    assert isinstance(one_more.error, OSError)
    assert one_more.error.errno == errno.ENOBUFS
    one_more.close()
    for each in (places[5], places[63]):
        each.close()
        assert portio.RegisteredBuffer(port, memory).active  # and gone again
    for each in places:
        each.close()
    memory.append(0)


def test_o18_memory_that_cannot_be_known(make_port: MakePort, backend: str, path: Path) -> None:
    """It works all the same."""
    only_where_known(backend)
    port = make_port()
    with (
        path.open("r+b") as mapped,
        mmap.mmap(mapped.fileno(), 0) as memory,
        portio.RegisteredBuffer(port, memory) as registered,
        portio.open(path, "r+") as file,
    ):
        assert not registered.active
        assert isinstance(registered.error, OSError)
        assert registered.error.errno in (errno.EOPNOTSUPP, errno.EFAULT)
        port.submit(portio.Write(port.associate(file), memory, len(DATA)))
        done = port.get(LIMIT)
        assert done is not None
        assert done.result() == len(DATA)
    assert path.read_bytes() == DATA * 2


@pytest.mark.core
def test_o18_misuse(driver: Driver) -> None:
    for buffer, error in (
        ("text", TypeError),
        (None, TypeError),
        (memoryview(bytearray(4))[::2], BufferError),
        (b"", ValueError),
    ):
        with pytest.raises(error):
            register(driver, buffer)


def test_o18_a_closed_port(make_port: MakePort) -> None:
    port = make_port()
    memory = bytearray(1)
    registered = portio.RegisteredBuffer(port, memory)
    port.close()
    assert not registered.active
    with pytest.raises(BufferError):
        memory.append(0)
    with pytest.raises(portio.PortClosedError):
        portio.RegisteredBuffer(port, memory)
    registered.close()
    memory.append(0)


def test_o18_another_thread(make_port: MakePort) -> None:
    """A thread-bound port's owner alone; what others drop stays pinned until it comes by."""
    port = make_port(thread_bound=True)
    memory = bytearray(1)
    registered = portio.RegisteredBuffer(port, memory)
    for use in (registered.close, lambda: portio.RegisteredBuffer(port, memory)):
        with pytest.raises(RuntimeError):
            Background(use).result()  # type: ignore[arg-type]
    assert registered.active == (registered.error is None)
    box = [registered]
    del registered, use
    gc.collect()
    Background(box.clear).result()
    if is_known(port.backend):
        with pytest.raises(BufferError):
            memory.append(0)
    portio.RegisteredBuffer(port, bytearray(1)).close()
    memory.append(0)
    box.append(portio.RegisteredBuffer(port, memory))
    Background(box.clear).result()
    port.close()
    memory.append(0)


def test_o18_threads_that_read_while_it_changes(make_port: MakePort, path: Path) -> None:
    """Nobody reads into another's memory, and nothing is left behind."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    port = make_port()
    stop = threading.Event()
    memory = bytearray(16 * PAGE)
    view = memoryview(memory)

    def change(dice: random.Random) -> None:
        while not stop.is_set():
            first, last = sorted(dice.sample(range(17), 2))
            with portio.RegisteredBuffer(port, view[first * PAGE : last * PAGE]) as registered:
                assert registered.active == is_known(port.backend)

    with portio.open(path) as file:
        key = port.associate(file)
        reads = [portio.Read(key, view[at * PAGE :][:PAGE]) for at in range(16)]
        dice = random.Random(seed)
        changing = [Background(change, random.Random(dice.random())) for _ in range(2)]
        for _ in range(150):
            for at, read in enumerate(reads):
                view[at * PAGE : at * PAGE + 8] = bytes(8)
                read.offset = dice.randrange(7 * PAGE)
            port.submit(*reads)
            for _ in reads:
                done = port.get(LIMIT)
                assert done is not None
                assert done.result() == PAGE
            for at, read in enumerate(reads):
                assert view[at * PAGE :][:PAGE] == DATA[read.offset :][:PAGE]
        stop.set()
        for each in changing:
            each.result()
        key.close()
    del reads, read, done, _  # which have parts of the view
    view.release()
    gc.collect()
    memory.append(0)


MEMLOCK = """
import os, resource, sys, tempfile
import portio

size = 1 << 23
resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
file = tempfile.TemporaryFile()
file.write(b"x" * size)
file.flush()
if os.geteuid() == 0:
    os.setuid(65534)  # root may lock what it likes
with portio.Port(backend=sys.argv[1]) as port:
    memory = bytearray(size)
    registered = portio.RegisteredBuffer(port, memory)
    assert not registered.active
    assert registered.error is not None
    port.submit(portio.Read(port.associate(file), memory))
    assert port.get(30).result() == size and memory == b"x" * size
    registered.close()
    small = portio.RegisteredBuffer(port, bytearray(4096))
    print(type(registered.error).__name__, registered.error.errno, small.active)
"""


@needs_resource_limits
def test_o18_less_may_be_locked(backend: str) -> None:
    only_where_known(backend)
    assert run_script(MEMLOCK, backend).split() == ["OSError", str(int(errno.ENOMEM)), "True"]


FORK = """
import os, sys
import portio

port = portio.Port(backend=sys.argv[1])
memory = bytearray(4096)
with portio.RegisteredBuffer(port, memory) as registered:
    child = os.fork()
    if child == 0:
        for use in (registered.close, lambda: portio.RegisteredBuffer(port, memory)):
            try:
                use()
            except RuntimeError:
                pass
            else:
                os._exit(1)
        # and out of the block, which does nothing
    else:
        assert os.waitpid(child, 0)[1] == 0
        assert registered.active == (registered.error is None)
if child == 0:
    del registered
    os._exit(0)
memory.append(0)
port.close()
print("done")
"""


@needs_fork
def test_o18_a_forked_child(backend: str) -> None:
    assert run_script(FORK, backend).strip() == "done"
