"""Programs that run into limits of the system."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import portio

LIMIT = 30.0
SKIP = 77
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_RDONLY, MS_REC, MS_PRIVATE, MS_REMOUNT = 1, 0x4000, 0x40000, 32


def descriptors() -> int:
    """How many are open, not counting the one that looks."""
    return len(os.listdir("/proc/self/fd")) - 1


def few_descriptors() -> None:
    """Allow no more than 256 descriptors from the beginning.

    io_uring remembers the limit of the time when an accept was submitted.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))


@contextlib.contextmanager
def no_more_descriptors(more: int = 0) -> Iterator[None]:
    """Use up the descriptors, but for so many."""
    fill = []
    with contextlib.suppress(OSError):
        while True:
            fill.append(os.dup(0))
    for _ in range(more):
        os.close(fill.pop())
    try:
        yield
    finally:
        for fd in fill:
            os.close(fd)


def take(port: portio.Port) -> portio.Completion[Any]:
    """The next packet, which has to come."""
    completion = port.get(LIMIT)
    assert completion is not None, "nothing came"
    return completion


def accepts(backend: str, kind: str) -> None:
    """An accept without a descriptor to give is an error, and takes no connection (O14)."""
    few_descriptors()
    with (
        portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket() as client,
    ):
        key = port.associate(listener)
        accept = portio.Accept(key)
        port.submit(accept)
        with no_more_descriptors():
            client.connect(listener.getsockname())
            completion = take(port)
            assert completion.operation is accept
            assert completion.error is not None
            assert completion.error.errno == errno.EMFILE, completion.error
            port.submit(accept)  # pending before, or failing at once: the same answer
            completion = take(port)
            assert completion.error is not None
            assert completion.error.errno == errno.EMFILE, completion.error
            assert port.get(0) is None
        port.submit(accept)
        with take(port).result() as connection:
            client.send(b"hello")
            buffer = bytearray(8)
            port.submit(portio.Recv(port.associate(connection), buffer))
            assert take(port).result() == 5
    print("done")


def ports(backend: str, kind: str) -> None:
    """Without descriptors no port is made, wherever the making fails, and nothing leaks."""
    few_descriptors()
    with portio.Port(backend=backend, thread_bound=kind == "thread_bound"):
        pass  # what a process opens once is open now
    before = descriptors()
    refused = 0
    for more in range(12):
        with no_more_descriptors(more):
            try:
                port = portio.Port(backend=backend, thread_bound=kind == "thread_bound")
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                refused += 1
            else:
                with contextlib.suppress(OSError):  # it may need one more for this
                    port.fileno()
                port.post(None, more)
                assert take(port).nbytes == more
                port.close()
        assert descriptors() == before
    assert 0 < refused < 12, refused
    print("done")


def first_port(backend: str, kind: str) -> None:
    """What fails for want of descriptors the first time is not held against the backend."""
    few_descriptors()
    with no_more_descriptors(), contextlib.suppress(OSError, ImportError):
        portio.Port(backend=backend, thread_bound=kind == "thread_bound").close()
    with portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port:
        port.post(None, 1)
        assert take(port).nbytes == 1
    print("done")


def locked_memory(backend: str, kind: str, limit: str) -> None:
    """Little memory may be locked, by a user without privileges (O14).

    What is asked for works, or it is said what is missing; what portio chooses
    itself works.
    """
    drop_privileges()
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (int(limit), int(limit)))
    thread_bound = kind == "thread_bound"
    try:
        exchange(portio.Port(backend=backend, thread_bound=thread_bound))
    except OSError as error:
        if backend != "io_uring" or "memory" not in str(error):
            raise
    exchange(portio.Port(thread_bound=thread_bound))
    print("done")


def many_ports(backend: str, kind: str) -> None:
    """Ports come and go, and the memory that they may lock is given back in time."""
    drop_privileges()
    for index in range(300):
        with portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port:
            port.submit(portio.Timer(1000))
            port.post(None, index)
            assert take(port).nbytes == index
    print("done")


def no_threads(backend: str, kind: str) -> None:
    """No thread can be started for a while, by a user without privileges (O14)."""
    drop_privileges()
    limits = resource.getrlimit(resource.RLIMIT_NPROC)
    port = portio.Port(backend=backend, thread_bound=kind == "thread_bound")
    resource.setrlimit(resource.RLIMIT_NPROC, (0, limits[1]))
    begun = time.process_time()
    files = start_files(port)
    completion = port.get(0.5)
    completions = [] if completion is None else [completion]
    assert time.process_time() - begun < 0.25, "it spins"
    resource.setrlimit(resource.RLIMIT_NPROC, limits)
    while len(completions) < 3:
        completions.append(take(port))
    for completion in completions:
        if completion.error is not None:
            assert completion.error.errno in (errno.EAGAIN, errno.ENOMEM), completion.error
    files.close()
    exchange(port)
    print("done")


def drop_privileges() -> None:
    """Root may exceed most limits; be nobody in particular.

    Limits are counted for each user, so nobody else should be the same.
    """
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(1_000_000_000 + os.getpid())


def start_files(port: portio.Port) -> portio.File:
    """Start operations for which an engine may need a thread."""
    path = tempfile.mkstemp()[1]
    file = portio.open(path, "r+")
    os.unlink(path)
    key = port.associate(file)
    port.submit(
        portio.Write(key, bytes(100_000)),
        portio.Sync(key),
        portio.Read(key, bytearray(10), 1 << 40),
    )
    return file


def exchange(port: portio.Port) -> None:
    """Operations of each sort work."""
    with port:
        ours, peer = socket.socketpair()
        with ours, peer:
            key = port.associate(ours)
            for _ in range(50):
                port.submit(portio.Recv(key, bytearray(8)))
                peer.send(b"hello")
                assert take(port).result() == 5
            port.submit(portio.Timer(0.001))
            assert take(port).error is None
            with start_files(port):
                for _ in range(3):
                    assert take(port).error is None


# Disks


def check(done: int, what: str) -> None:
    """A call of libc must succeed; where it may not, the test is skipped."""
    if done != 0:
        print(f"{what} is not allowed here: {os.strerror(ctypes.get_errno())}")
        sys.exit(SKIP)


def small_disk(folder: Path, flags: int = 0) -> None:
    """Mount a disk of 256 KiB that nobody else sees, and that ends with us."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        check(libc.unshare(CLONE_NEWNS), "unshare")
    else:  # be root in a world of our own
        check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount")
    check(libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, b"size=256k"), "mount")
    (folder / "file").write_bytes(b"content")
    if flags:
        check(libc.mount(None, os.fsencode(folder), None, flags | MS_REMOUNT, None), "mount")


def full_disk(backend: str, kind: str, path: str) -> None:
    """A write that does not fit says how much did (O8)."""
    folder = Path(path)
    small_disk(folder)
    block = os.urandom(1 << 20)
    with (
        portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port,
        portio.open(folder / "big", "w") as file,
    ):
        key = port.associate(file)
        port.submit(portio.Write(key, [block[:5000], block[5000:]]))
        completion = take(port)
        assert completion.error is not None
        assert completion.error.errno == errno.ENOSPC, completion.error
        written = completion.nbytes
        assert 0 < written < 256 * 1024, written
        assert (folder / "big").read_bytes() == block[:written]
        file.truncate(0)
        port.submit(portio.Write(key, b"fits again"))
        assert take(port).result() == 10
    print("done")


def too_large(backend: str, kind: str, path: str) -> None:
    """A file beyond the limit of the process (RLIMIT_FSIZE), whose signal is ignored."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    block = os.urandom(1 << 20)
    with (
        portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port,
        portio.open(Path(path) / "file", "w+") as file,
    ):
        key = port.associate(file)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        port.submit(portio.Write(key, block))
        completion = take(port)
        assert completion.error is not None
        assert completion.error.errno == errno.EFBIG, completion.error
        assert completion.nbytes == 300_000
        assert file.size() == 300_000
        assert os.pread(file.fileno(), 1 << 20, 0) == block[:300_000]
        port.submit(portio.Write(key, b"more", 300_000))
        completion = take(port)
        assert completion.error is not None
        assert completion.error.errno == errno.EFBIG
        assert completion.nbytes == 0
        port.submit(portio.Write(key, b"below", 10))
        assert take(port).result() == 5
    print("done")


def full_device(backend: str, kind: str, path: str) -> None:
    """The device that is always full."""
    with (
        portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port,
        portio.open("/dev/full", "r+") as file,
    ):
        port.submit(portio.Write(port.associate(file), bytes(1000)))
        completion = take(port)
        assert completion.error is not None
        assert completion.error.errno == errno.ENOSPC, completion.error
        assert completion.nbytes == 0
    print("done")


def read_only_disk(backend: str, kind: str, path: str) -> None:
    """What cannot be written cannot be opened for writing; reading works."""
    folder = Path(path)
    small_disk(folder, MS_RDONLY)
    for name, mode in [("file", "r+"), ("file", "w"), ("new", "w"), ("new", "x"), ("file", "w+")]:
        try:
            portio.open(folder / name, mode).close()
        except OSError as error:
            if error.errno == errno.EROFS and name in str(error):
                continue
            raise
        raise AssertionError(f"opened {name} with {mode}")
    with (
        portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port,
        portio.open(folder / "file") as file,
    ):
        key = port.associate(file)
        buffer = bytearray(20)
        port.submit(portio.Read(key, buffer))
        assert take(port).result() == 7
        assert buffer[:7] == b"content"
        port.submit(portio.Write(key, b"x"))  # opened for reading: the system says no
        completion = take(port)
        assert completion.error is not None
        assert completion.error.errno == errno.EBADF, completion.error
    print("done")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
