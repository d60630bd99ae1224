"""Operations that are awaited, and the ports of a run."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.lowlevel import checkpoint
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import portio
from portio.trio import TrioPort, current_port, open_file, open_pipe, run
from support.children import Child, environment, run_script
from support.net import Net, pattern, recv_exactly
from support.system import LOCAL
from support.threads import Background
from support.trio_runs import in_trio
from support.watch import LIMIT

MakePort = Callable[[], AbstractAsyncContextManager[TrioPort]]


@in_trio
async def test_results_and_errors(trio_port: MakePort, net: Net) -> None:
    async with trio_port() as port:
        with assert_checkpoints():
            assert await port.run(portio.Timer(0)) is None
        ours, peer = net.pair()
        key = port.associate(ours)
        buffer = bytearray(8)
        with assert_checkpoints():
            assert await port.run(portio.Send(key, b"to the peer")) == 11
        assert peer.recv(100) == b"to the peer"
        peer.sendall(b"answer")
        assert await run(portio.Recv(key, buffer)) == 6  # on the port of its key
        assert buffer[:6] == b"answer"
        peer.close()
        assert await port.run(portio.Recv(key, buffer)) == 0
        connect = portio.Connect(port.associate(net.socket()), net.refused_address())
        with pytest.raises(ConnectionRefusedError):
            await port.run(connect)
        connect.key = port.associate(net.socket())
        done = await port.complete(connect)
        assert isinstance(done.error, ConnectionRefusedError)
        assert done.operation is connect
        key.close()


async def spin() -> None:
    """Be always ready to run."""
    while True:
        await checkpoint()


@in_trio
async def test_many_completions(trio_port: MakePort, net: Net) -> None:
    """They are taken with get; who awaits an operation waits for one completion."""
    async with trio_port() as port:
        listener = net.listener()
        accept = portio.Accept(port.associate(listener), multishot=True)
        for wait in (port.run, port.complete):
            with pytest.raises(ValueError, match="multishot"), assert_checkpoints():
                await wait(accept)
        assert not accept.pending
        port.submit(accept)
        for _ in range(3):
            net.client(listener)
            done = await port.get()
            net.own(done.result())
            assert not done.last
        clients = [net.client(listener) for _ in range(3)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spin)  # also while the loop never sleeps
            with trio.fail_after(LIMIT):
                for _ in clients:
                    net.own((await port.get()).result())
            nursery.cancel_scope.cancel()
        accept.cancel()
        assert (await port.get()).last


@pytest.mark.parametrize("how", ["run", "complete"])
@in_trio
async def test_tasks_that_use_one_operation_in_turn(
    trio_port: MakePort, tmp_path: Path, how: str
) -> None:
    """Each gets its own result, though the next starts it before the last has it."""
    path = tmp_path / "file"
    path.write_bytes(bytes(64))
    async with trio_port() as port:
        with portio.open(path) as file:
            key = port.associate(file)
            buffers = [bytearray(size) for size in range(1, 33)]
            read = portio.Read(key, buffers[0])

            async def use(buffer: bytearray) -> None:
                for _ in range(20):
                    while read.pending:
                        await trio.lowlevel.checkpoint()
                    read.buffer = buffer
                    if how == "run":
                        assert await port.run(read) == len(buffer)
                    else:
                        assert (await port.complete(read)).result() == len(buffer)

            async with trio.open_nursery() as nursery:
                for buffer in buffers:
                    nursery.start_soon(use, buffer)


@pytest.mark.parametrize("how", ["run", "complete"])
@in_trio
async def test_an_operation_is_pending_until_its_task_has_the_result(
    trio_port: MakePort, net: Net, how: str
) -> None:
    """Also while its packet is on the way from the port to the loop."""
    async with trio_port() as port:
        ours, peer = net.pair()
        sizes = range(1, 9)
        receive = portio.Recv(port.associate(ours), bytearray(1))
        started = 0

        async def use(size: int) -> None:
            nonlocal started
            for _ in range(20):
                while receive.pending:
                    await checkpoint()
                receive.buffer = bytearray(size)
                started += 1
                if how == "run":
                    assert await port.run(receive) == size
                else:
                    assert (await port.complete(receive)).result() == size

        async def feed() -> None:
            for turn in range(20 * len(sizes)):
                while started == turn:
                    await checkpoint()
                peer.sendall(bytes(len(receive.buffer)))

        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                for size in sizes:
                    nursery.start_soon(use, size)
                nursery.start_soon(feed)


@in_trio
async def test_operations_of_several_steps(trio_port: MakePort, net: Net, tmp_path: Path) -> None:
    """Steps that give no packet: they go on while the loop never sleeps."""
    data = pattern(4 << 20)
    (tmp_path / "file").write_bytes(data)
    async with trio_port() as port:
        ours, peer = net.small_pair()
        key = port.associate(ours)
        with portio.open(tmp_path / "file") as file, Background(recv_exactly, peer, 8 << 20) as got:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spin)
                with trio.fail_after(LIMIT):
                    assert await port.run(portio.Send(key, data)) == len(data)
                    assert await port.run(portio.SendFile(key, file)) == len(data)
                nursery.cancel_scope.cancel()
            assert got.result() == data * 2


@in_trio
async def test_misuse(trio_port: MakePort, net: Net) -> None:
    async with trio_port() as port:
        key = port.associate(net.pair()[0])
        with pytest.raises(TypeError), assert_checkpoints():
            await port.run(portio.Recv(key, "text"))  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await port.run("no operation")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await run("no operation")  # type: ignore[arg-type]
        receive = portio.Recv(key, bytearray(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(port.run, receive)
            await wait_all_tasks_blocked()
            with pytest.raises(RuntimeError, match="pending already"):
                await port.run(receive)
            assert receive.pending
            nursery.cancel_scope.cancel()
        assert not receive.pending
        key.close()


def test_outside_of_a_run() -> None:
    with pytest.raises(RuntimeError):
        current_port()
    with pytest.raises(RuntimeError):
        TrioPort()


def test_the_port_of_a_run(backend: str, wake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made on first use, always the same, closed with the run."""
    monkeypatch.setenv("PORTIO_BACKEND", backend)
    ports = []

    async def main() -> None:
        await run(portio.Timer(0))
        assert current_port() is current_port()
        assert current_port().backend == backend
        ports.append(current_port())

    for _ in range(2):
        trio.run(main)
    assert ports[0] is not ports[1]
    assert ports[0].closed
    assert ports[1].closed


def test_runs_in_threads(backend: str, wake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTIO_BACKEND", backend)

    async def main() -> TrioPort:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(run, portio.Timer(0.001))
        return current_port()

    threads = [Background(trio.run, main) for _ in range(4)]
    assert len({id(thread.result()) for thread in threads}) == 4


@in_trio
async def test_several_ports_in_a_run(trio_port: MakePort, net: Net) -> None:
    async with trio_port() as one, trio_port() as other:
        ours, theirs = net.pair(LOCAL)
        send, receive = portio.Send, portio.Recv
        key, other_key = one.associate(ours), other.associate(theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, receive(other_key, buffer := bytearray(5)))
            await run(send(key, b"hello"))
        assert buffer == b"hello"
        with pytest.raises(ValueError, match="another port"):
            await one.run(send(other_key, b"x"))
        key.close()
        other_key.close()


@in_trio
async def test_made_and_closed_at_once(backend: str, wake: str, no_leak: None) -> None:
    for _ in range(3):
        TrioPort(backend=backend).close()
        port = TrioPort(backend=backend)
        port.submit(portio.Timer(1000))
        port.close()
        port.close()
        await trio.lowlevel.checkpoint()


@in_trio
async def test_closing_wakes_all_tasks(trio_port: MakePort) -> None:
    async with trio_port() as port:

        async def wait() -> None:
            with pytest.raises(portio.PortClosedError):
                await port.run(portio.Timer(1000))

        async def get() -> None:
            with pytest.raises(portio.PortClosedError):
                await port.get()

        async with trio.open_nursery() as nursery:
            for function in (wait, get, wait, get):
                nursery.start_soon(function)
            await wait_all_tasks_blocked()
            port.close()
        assert [packet async for packet in port] == []


@in_trio
async def test_a_port_that_is_closed_behind_our_back(trio_port: MakePort) -> None:
    async with trio_port() as port:

        async def wait() -> None:
            with pytest.raises(portio.PortClosedError):
                await port.run(portio.Timer(1000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            port.port.close()
            with pytest.raises(portio.PortClosedError):
                await port.run(portio.Timer(0))


@in_trio
async def test_packets_that_nobody_awaits(trio_port: MakePort) -> None:
    async with trio_port() as port:
        key = portio.CompletionKey("news")
        timer = portio.Timer(0)
        port.submit(timer)
        assert (await port.get()).operation is timer
        thread = Background(port.port.post, key, 7, "payload")
        with assert_checkpoints():
            packet = await port.get()
        assert (packet.key, packet.nbytes, packet.payload) == (key, 7, "payload")
        thread.result()
        port.port.post(None, 1)
        async for packet in port:
            assert packet.nbytes == 1
            break
        with trio.move_on_after(0.01) as scope:
            await port.get()
        assert scope.cancelled_caught


@in_trio
async def test_a_long_send_goes_on_while_tasks_do_other_things(
    trio_port: MakePort, net: Net
) -> None:
    """It takes many steps, and nobody but the adapter sees to them."""
    async with trio_port() as port:
        ours, peer = net.small_pair()
        key = port.associate(ours)
        size = 8 << 20
        received = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(port.run, portio.Send(key, bytes(size)))
            while received < size:
                received += await trio.to_thread.run_sync(lambda: len(peer.recv(1 << 20)))
        key.close()


@in_trio
async def test_cleaning_up_when_the_main_task_has_ended(backend: str, wake: str) -> None:
    """System tasks and generators use their files and streams on their way out."""
    outcomes: dict[str, Any] = {}

    async def inner(folder: str) -> None:
        port = TrioPort(backend=backend)
        sender, receiver = open_pipe(on=port)

        async def system_task() -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    # First without a watcher, then with a pending operation.
                    await port.run(portio.Timer(0.001))
                    await sender.send_all(b"late")
                    outcomes["task"] = await receiver.receive_some()
                    await sender.aclose()
                    await receiver.aclose()

        async def generator() -> AsyncIterator[int]:
            async with await open_file(f"{folder}/file", "wb", on=port) as file:
                await file.write(b"from a generator")
                yield 1

        numbers = generator()
        outcomes["kept"] = numbers
        assert await anext(numbers) == 1
        trio.lowlevel.spawn_system_task(system_task)
        await trio.lowlevel.checkpoint()
        outcomes["port"] = port

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        await trio.to_thread.run_sync(trio.run, inner, folder)
        assert (Path(folder) / "file").read_bytes() == b"from a generator"
    assert outcomes["task"] == b"late"
    assert outcomes["port"].closed


def test_nothing_is_left(backend: str, wake: str, no_leak: None) -> None:
    """No warning of what was not awaited or closed, at the end or later."""

    async def main() -> None:
        async with TrioPort(backend=backend) as port:
            sender, receiver = open_pipe(on=port)
            async with sender, receiver:
                with trio.move_on_after(0.001):
                    await receiver.receive_some()
        port = TrioPort(backend=backend)
        port.submit(portio.Timer(1000))

    before = threading.active_count()
    trio.run(main)
    gc.collect()
    assert threading.active_count() <= before + 1  # trio keeps a thread for a while


SCRIPT = """
import sys, trio
from portio.trio import TrioPort, open_pipe

async def main():
    async with TrioPort(backend=sys.argv[1]) as port:
        sender, receiver = open_pipe(on=port)
        async with sender, receiver:
            print("waiting", flush=True)
            try:
                await receiver.receive_some()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            await sender.send_all(b"nothing is lost")
            print(await receiver.receive_some(), flush=True)
trio.run(main)
"""


def test_ctrl_c(backend: str, wake: str) -> None:
    """It ends the main task's wait, as a cancellation does."""
    with Child(SCRIPT, backend) as child:
        child.expect("waiting")
        child.wait_until_blocked()
        child.signal(signal.SIGINT)
        child.expect("interrupted")
        child.expect("b'nothing is lost'")
        child.finish()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no interval timers")
def test_ctrl_c_at_any_time(backend: str, wake: str) -> None:
    """Wherever it strikes, what was started is awaited, and the next operations work."""
    run_script(
        """
        import random, signal, sys
        import trio, portio
        from portio.trio import TrioPort, open_pipe

        async def work(port, sender, receiver, count):
            for _ in range(count):
                await sender.send_all(b"x")
                await receiver.receive_some(1)

        async def main():
            seed = random.randrange(2**32)
            random.seed(seed)
            async with TrioPort(backend=sys.argv[1]) as port:
                interrupted = 0
                while interrupted < 50:
                    sender, receiver = open_pipe(on=port)
                    try:
                        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.003))
                        await work(port, sender, receiver, 1_000_000)
                    except KeyboardInterrupt:
                        interrupted += 1
                    assert not port.waiting, seed
                    sender.close()
                    receiver.close()

        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        trio.run(main)
        """,
        backend,
        limit=LIMIT,
    )


def test_without_trio(tmp_path: Path) -> None:
    """The package does without; the module says what is missing."""
    (tmp_path / "trio.py").write_text("raise ModuleNotFoundError('no trio', name='trio')\n")
    code = (
        "import portio\ntry:\n    import portio.trio\n"
        "except ModuleNotFoundError as error:\n    print(error)\n"
    )
    variables = environment()
    variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path), variables["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    assert done.stdout == "portio.trio needs trio: pip install 'completion-port[trio]'\n", done
