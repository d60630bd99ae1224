"""What is Windows' own: its handles and paths, and its port as the rest of a program sees it."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import portio
from support import handles
from support.children import run_script
from support.drivers import Driver
from support.marks import wine_ignores_concurrency
from support.net import Net, recv_exactly
from support.threads import Background
from support.watch import LIMIT, eventually, wait_until_blocked

if sys.platform != "win32":
    pytest.skip("the rules of Windows' own handles, paths and threads", allow_module_level=True)

from support import win32

MakePort = Callable[..., portio.Port]


# K1: handles that no port can take


def test_k1_a_file_that_was_not_opened_for_overlapped_io(driver: Driver, tmp_path: Path) -> None:
    handle = win32.open_file(tmp_path / "file", "r+", flags=0)
    try:
        with pytest.raises((OSError, ValueError), match=r"(?i)overlapped"):
            driver.associate(handle)
    finally:
        handles.close(handle)


def test_k1_a_pipe_end_that_was_not_opened_for_overlapped_io(driver: Driver) -> None:
    reader, writer = win32.open_pipe(writer_flags=0)
    try:
        with pytest.raises((OSError, ValueError), match=r"(?i)overlapped"):
            driver.associate(writer)
        assert driver.associate(reader).handle == reader
        driver.close()
    finally:
        handles.close(reader)
        handles.close(writer)


def test_k1_a_file_object_of_python_is_explained(driver: Driver, tmp_path: Path) -> None:
    """Python's own files are not opened for overlapped I/O, and have no HANDLE for a number."""
    with open(tmp_path / "file", "wb+") as file, pytest.raises((OSError, ValueError, TypeError)):
        driver.associate(file)


def test_k1_a_socket_of_another_programs_port(driver: Driver, net: Net) -> None:
    """As of asyncio's, which keeps a completion port of its own."""
    ours, peer = net.pair()
    peer.setblocking(False)

    async def receive() -> None:
        receiving = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(peer, 8))
        await asyncio.sleep(0)  # now it is associated
        with pytest.raises((OSError, ValueError)) as caught:
            driver.associate(peer)
        if isinstance(caught.value, OSError):
            assert caught.value.errno in (errno.EBUSY, errno.EINVAL)
        ours.sendall(b"still its")
        assert await receiving == b"still it"

    asyncio.run(receive())


def test_k1_standard_streams_and_events_are_no_handles_for_io(driver: Driver) -> None:
    event = win32.create_event()
    try:
        with pytest.raises((OSError, ValueError)):
            driver.associate(event)
    finally:
        handles.close(event)


# Paths


def test_k1_paths_that_are_longer_than_260_characters(driver: Driver, tmp_path: Path) -> None:
    folder = tmp_path
    while len(str(folder)) < 300:
        folder /= "a name of some length " + "x" * 20
        win32.make_folder(folder)
    path = folder / "file"
    with portio.open(path, "w+") as file:
        assert driver.result(portio.Write(driver.associate(file), b"far down")) == 8
    with portio.open(path) as file:
        assert file.size() == 8


@pytest.mark.parametrize("path", ["x" * 40_000, "C:\\" + "y" * 300, "nul\0inside"])
def test_k1_paths_that_are_too_long_or_broken(path: str) -> None:
    with pytest.raises((OSError, ValueError)) as caught:
        portio.open(path, "w")
    if isinstance(caught.value, OSError):
        assert caught.value.errno in (errno.ENAMETOOLONG, errno.ENOENT, errno.EINVAL)


@pytest.mark.parametrize("name", ["a<b", "a|b", 'a"b', "a?b", "a*b"])
def test_k1_paths_that_are_reserved(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at
        portio.open(f"{tmp_path}\\{name}", "w")
    assert caught.value.errno in (errno.EINVAL, errno.ENOENT)


# Packets that the system leaves out


def test_o15_a_success_at_once_is_over_when_submit_returns(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    at_once = 0
    for number in range(50):
        send = portio.Send(key, b"%04d" % number)
        driver.submit_quiet(send)
        at_once += not send.pending
        eventually(lambda send=send: driver.assert_quiet() or not send.pending, "the send ends")
        assert recv_exactly(peer, 4) == b"%04d" % number
    assert at_once > 0
    driver.assert_quiet()


@pytest.mark.parametrize("kind", ["stream", "datagram", "file"])
def test_o1_a_handle_that_the_program_lets_skip_already(
    driver: Driver, net: Net, tmp_path: Path, kind: str
) -> None:
    """The mode cannot be taken back: the engine makes the packets that the system does not."""
    operations: list[portio.Operation[int]]
    if kind == "file":
        file = portio.open(tmp_path / "file", "w+")
        net._closing.enter_context(file)
        win32.skip_completion_on_success(file.fileno())
        key = driver.associate(file)
        operations = [portio.Write(key, b"1234", at) for at in range(0, 80, 4)]
    else:
        ours, peer = net.pair() if kind == "stream" else (net.datagram(), net.datagram())
        win32.skip_completion_on_success(ours.fileno())
        key = driver.associate(ours)
        if kind == "stream":
            operations = [portio.Send(key, b"1234") for _ in range(20)]
        else:
            operations = [portio.SendTo(key, b"1234", peer.getsockname()) for _ in range(20)]
    driver.submit(*operations)
    assert [done.result() for done in driver.wait_for_all(operations)] == [4] * 20
    driver.assert_quiet()


@pytest.mark.parametrize("feature", ["skip_success", "disassociate", "transmit_file"])
def test_without_a_feature_everything_works(feature: str) -> None:
    """The switch for debugging, in a child: it is read when a port is created."""
    script = """
        import os, socket, sys, portio
        os.environ["PORTIO_IOCP"] = "no-" + sys.argv[1]
        with portio.Port(thread_bound=True) as port, socket.create_server(("127.0.0.1", 0)) as at:
            with socket.create_connection(at.getsockname()) as peer, at.accept()[0] as ours:
                key = port.associate(ours)
                port.submit(portio.Send(key, b"one"))
                assert port.get(30).result() == 3
                port.submit(portio.Send(key, b"two"), quiet=True)
                peer.sendall(b"123")
                port.submit(receive := portio.Recv(key, bytearray(8)))
                done = port.get(30)
                assert done.operation is receive and done.result() == 3
                with open(portio.__file__, "rb") as file:
                    port.submit(portio.SendFile(key, file, 0, 10))
                    assert port.get(30).result() == 10
                assert peer.recv(6, socket.MSG_WAITALL) == b"onetwo"
        print("worked")
    """
    assert run_script(script, feature) == "worked\n"


# P4: the kernel counts the threads that run


def compute() -> float:
    """Run without the GIL and without the system for a while; when it was over."""
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 1_000_000)
    return time.perf_counter()


@wine_ignores_concurrency
def test_p4_a_thread_that_computes_keeps_its_place(make_port: MakePort) -> None:
    port = make_port(1)
    began = threading.Event()

    def take_and_compute() -> float:
        assert port.get(LIMIT) is not None
        began.set()
        return compute()

    def take() -> float:
        assert port.get(LIMIT) is not None
        return time.perf_counter()

    second = Background(take)
    wait_until_blocked(second)
    first = Background(take_and_compute)  # waits last, and is released first
    wait_until_blocked(first)
    port.post()
    assert began.wait(LIMIT)
    port.post()
    assert first.result() - second.result() < 0.1


def test_p4_a_thread_that_blocks_gives_up_its_place(make_port: MakePort) -> None:
    """Without a word to the port: `blocking` is for other systems."""
    port = make_port(1)
    over, taken = threading.Event(), threading.Semaphore(0)

    def take_and_block() -> None:
        assert port.get(LIMIT) is not None
        taken.release()
        assert over.wait(2 * LIMIT)

    threads = [Background(take_and_block) for _ in range(3)]
    wait_until_blocked(*threads)
    for _ in threads:
        port.post()
    for _ in threads:
        assert taken.acquire(timeout=LIMIT), "a blocked thread has kept its place"
    over.set()
    for thread in threads:
        thread.result()


# P11: what an adapter can do with the port


def test_p11_the_handle_can_be_waited_for(make_port: MakePort) -> None:
    port = make_port()
    with pytest.raises(portio.NotSupportedError):
        port.fileno()
    handle = port.handle
    assert not win32.wait_for(handle, 0)
    port.post(None, 7)
    assert win32.wait_for(handle, LIMIT)
    packet = port.get(0)
    assert packet is not None
    assert packet.nbytes == 7
    assert not win32.wait_for(handle, 0)
