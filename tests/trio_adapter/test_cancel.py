"""Cancellation: at every step of a program, and nothing is lost, doubled or left."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import portio
from portio.trio import (
    BinaryFile,
    SocketListener,
    SocketStream,
    TrioPort,
    copy_file,
    open_file,
    open_tcp_stream,
    send_file,
)
from support.net import Net, pattern, recv_all
from support.system import LOCAL, WINE
from support.trio_runs import in_trio

MakePort = Callable[[], AbstractAsyncContextManager[TrioPort]]
MOST_STEPS = 400


class CancelAt(trio.abc.Instrument):
    """Cancels a scope before a step of the run, whichever task takes that step."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.steps_left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.steps_left == 0:
            self.scope.cancel()
        self.steps_left -= 1


@asynccontextmanager
async def cancelled_at(step: int) -> AsyncIterator[trio.CancelScope]:
    """A scope that is cancelled before this step of the run."""
    with trio.CancelScope() as scope:
        instrument = CancelAt(scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(instrument)


async def at_every_step(scenario: Callable[[int], Awaitable[trio.CancelScope]]) -> int:
    """Do the same again and again, each time cancelled a step later, until it gets through.

    How often it was cancelled: not each time, since what is complete is not cancelled.
    """
    cancelled = 0
    for step in range(MOST_STEPS):
        scope = await scenario(step)
        if not scope.cancel_called:
            return cancelled
        cancelled += scope.cancelled_caught
    pytest.fail(f"still cancelled after {MOST_STEPS} steps")


@in_trio
async def test_receiving(trio_port: MakePort, net: Net) -> None:
    """What a receive that won has, and what one that was cancelled left, is everything."""

    async def scenario(step: int) -> trio.CancelScope:
        async with trio_port() as port:
            ours, peer = net.pair(LOCAL)
            received = bytearray()
            async with SocketStream(ours, on=port) as stream:

                async def feed() -> None:
                    for byte in b"0123456789":
                        peer.send(bytes([byte]))
                        await trio.lowlevel.checkpoint()
                        await trio.lowlevel.checkpoint()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(feed)
                    async with cancelled_at(step) as scope:
                        while len(received) < 10:
                            received += await stream.receive_some(2)
                while len(received) < 10:
                    received += await stream.receive_some(3)
            assert received == b"0123456789"
            assert not port.waiting
            peer.close()
            return scope

    assert await at_every_step(scenario)


@in_trio
async def test_sending(trio_port: MakePort, net: Net) -> None:
    """Somewhere in the message, or not at all; never twice, never a hole."""
    data = pattern(600_000)

    async def scenario(step: int) -> trio.CancelScope:
        async with trio_port() as port:
            ours, peer = net.small_pair(LOCAL)
            ended = False
            async with SocketStream(ours, on=port) as stream, trio.open_nursery() as nursery:
                received = bytearray()

                async def receive() -> None:
                    received.extend(await trio.to_thread.run_sync(recv_all, peer))

                nursery.start_soon(receive)
                async with cancelled_at(step) as scope:
                    await stream.send_all(data)
                    ended = True
                await stream.send_eof()
            if ended:
                assert received == data
            else:
                assert data.startswith(received)
            peer.close()
            return scope

    assert await at_every_step(scenario)


@in_trio
async def test_accepting(trio_port: MakePort, net: Net) -> None:
    """Every connection is accepted once."""

    async def scenario(step: int) -> trio.CancelScope:
        async with trio_port() as port:
            streams: list[SocketStream] = []
            async with SocketListener(net.listener(LOCAL), on=port) as listener:
                async with trio.open_nursery() as nursery:

                    async def connect() -> None:
                        for _ in range(3):
                            net.client(listener.socket)
                            await trio.lowlevel.checkpoint()

                    nursery.start_soon(connect)
                    async with cancelled_at(step) as scope:
                        while len(streams) < 3:
                            streams.append(await listener.accept())
                while len(streams) < 3:
                    streams.append(await listener.accept())
                for stream in streams:
                    await stream.aclose()
            return scope

    assert await at_every_step(scenario)


@pytest.mark.parametrize("how", ["read", "lines", "all"])
@in_trio
async def test_reading_a_file(trio_port: MakePort, tmp_path: Path, how: str) -> None:
    """A cancelled read has not moved the position, in bytes or in text."""
    text = "".join(f"zeile {number} ä\n" for number in range(700))
    (tmp_path / "file").write_bytes(text.encode())

    async def read(file: Any, parts: list[Any]) -> None:
        if how == "all":
            parts.append(await file.read())
            return
        while part := await (file.read(1000) if how == "read" else file.readline(7000)):
            parts.append(part)

    stride = (200 if WINE else 41) if how == "lines" else 1

    async def scenario(step: int) -> trio.CancelScope:
        async with trio_port() as port:
            for mode in ("rb", "r"):
                encoding = None if "b" in mode else "utf-8"
                file: Any = await open_file(tmp_path / "file", mode, encoding=encoding, on=port)
                async with file:
                    parts: list[Any] = []
                    async with cancelled_at(step * stride) as scope:
                        await read(file, parts)
                    await read(file, parts)
                    whole = b"".join(parts) if "b" in mode else "".join(parts).encode()
                    assert whole == text.encode()
            return scope

    assert await at_every_step(scenario) or how == "all"  # which is complete at once


@in_trio
async def test_writing_a_file(trio_port: MakePort, tmp_path: Path) -> None:
    """A cancelled write has taken nothing; what was taken is in the file in the end."""
    path = tmp_path / "file"

    async def scenario(step: int) -> trio.CancelScope:
        async with trio_port() as port:
            taken = b""
            async with (
                await open_file(path, "wb", buffering=100, on=port) as file,
                cancelled_at(step) as scope,
            ):
                for number in range(30):
                    line = b"line %d\n" % number
                    await file.write(line)
                    taken += line
                    if number % 10 == 9:
                        await file.flush()
            assert path.read_bytes() == taken
            return scope

    assert await at_every_step(scenario)


@in_trio
async def test_a_cancelled_close_still_closes(
    trio_port: MakePort, tmp_path: Path, net: Net
) -> None:
    async def scenario(step: int) -> trio.CancelScope:
        async with trio_port() as port:
            ours, peer = net.pair()
            stream = SocketStream(ours, on=port)
            file: BinaryFile = await open_file(tmp_path / "file", "wb", on=port)
            await file.write(b"pending")
            async with cancelled_at(step) as scope:
                try:
                    await file.aclose()
                finally:
                    await stream.aclose()
            assert file.closed
            assert (tmp_path / "file").read_bytes() == b"pending"
            assert peer.recv(1) == b""
            return scope

    assert await at_every_step(scenario)


@in_trio
async def test_whole_files(trio_port: MakePort, tmp_path: Path, net: Net) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(pattern(300_000))

    async def scenario(step: int) -> trio.CancelScope:
        async with trio_port() as port:
            ours, peer = net.pair(LOCAL)
            async with SocketStream(ours, on=port) as stream, trio.open_nursery() as nursery:
                received = bytearray()

                async def receive() -> None:
                    received.extend(await trio.to_thread.run_sync(recv_all, peer))

                nursery.start_soon(receive)
                async with cancelled_at(step) as scope:
                    assert await copy_file(source, target, block_size=50_000, on=port) == 300_000
                    assert target.read_bytes() == source.read_bytes()
                    async with await open_file(target, "rb", on=port) as file:
                        assert await send_file(stream, file) == 300_000
                await stream.send_eof()
            assert pattern(300_000).startswith(received)
            if not scope.cancelled_caught:
                assert len(received) == 300_000
            assert not port.waiting
            peer.close()
            return scope

    assert await at_every_step(scenario)


@in_trio
async def test_connecting(trio_port: MakePort, net: Net) -> None:
    listener = net.listener(backlog=1000)

    async def scenario(step: int) -> trio.CancelScope:
        async with trio_port() as port:
            async with (
                cancelled_at(step) as scope,
                await open_tcp_stream(*listener.getsockname(), on=port) as stream,
            ):
                await stream.send_eof()
            return scope

    assert await at_every_step(scenario)


# One operation.


def never(port: TrioPort, net: Net, closing: contextlib.ExitStack) -> list[portio.Operation[Any]]:
    """An operation of each kind that waits for ever."""
    reader, writer = portio.pipe()
    closing.callback(reader.close)
    closing.callback(writer.close)
    return [
        portio.Recv(port.associate(net.pair()[0]), bytearray(8)),
        portio.RecvFrom(port.associate(net.datagram()), bytearray(8)),
        portio.Accept(port.associate(net.listener())),
        portio.Connect(port.associate(net.socket()), net.full_listener().getsockname()),
        portio.Send(port.associate(net.small_pair()[0]), bytes(1 << 25)),
        portio.Read(port.associate(reader), bytearray(8)),
        portio.Write(port.associate(writer), bytes(1 << 20)),
        portio.Timer(1000),
    ]


@in_trio
async def test_cancelled_before_it_starts(
    trio_port: MakePort, net: Net, closing: contextlib.ExitStack
) -> None:
    """Nothing happens at all."""
    async with trio_port() as port:
        key = port.associate((pair := net.pair(LOCAL))[0])
        for operation in [portio.Send(key, b"x"), *never(port, net, closing)]:
            with trio.CancelScope() as scope:
                scope.cancel()
                await port.run(operation)
            assert scope.cancelled_caught
            assert not operation.pending
            with pytest.raises(RuntimeError, match="has not completed"):
                operation.result()
        pair[1].setblocking(False)
        with pytest.raises(BlockingIOError):
            pair[1].recv(1)
        key.close()


@in_trio
async def test_every_kind_is_cancelled_promptly(
    trio_port: MakePort, net: Net, closing: contextlib.ExitStack
) -> None:
    """By a deadline, and by another task; the operation is over when the wait is."""
    async with trio_port() as port:
        for operation in never(port, net, closing):
            told: list[portio.Completion[Any]] = []
            with trio.move_on_after(0.005) as scope:
                await port.complete(operation, told.append)
            assert scope.cancelled_caught, operation
            assert not operation.pending
            assert isinstance(told[0].error, portio.OperationCancelledError)
        for operation in never(port, net, closing):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(port.run, operation)
                    await wait_all_tasks_blocked()
                    assert operation.pending
                    scope.cancel()
            assert not operation.pending


@in_trio
async def test_a_shield_holds(trio_port: MakePort, net: Net) -> None:
    async with trio_port() as port:
        ours, peer = net.pair()
        receive = portio.Recv(port.associate(ours), bytearray(8))
        with trio.CancelScope() as outer:
            async with trio.open_nursery() as nursery:

                async def shielded() -> None:
                    with trio.CancelScope(shield=True):
                        assert await port.run(receive) == 4

                nursery.start_soon(shielded)
                await wait_all_tasks_blocked()
                outer.cancel()
                with trio.CancelScope(shield=True):
                    await wait_all_tasks_blocked()
                assert receive.pending
                peer.sendall(b"data")
        assert not receive.pending


@in_trio
async def test_the_operation_may_win(trio_port: MakePort, net: Net) -> None:
    """Cancelled when the data is there already: it is returned, or stays in the stream."""
    won = 0
    async with trio_port() as port:
        ours, peer = net.pair(LOCAL)
        async with SocketStream(ours, on=port) as stream:
            for number in range(200):
                result: list[bytes] = []

                async def receive(into: list[bytes]) -> None:
                    into.append(await stream.receive_some())

                message = b"%d" % number
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(receive, result)
                    await wait_all_tasks_blocked()
                    if number % 2:
                        nursery.cancel_scope.cancel()
                    peer.send(message)
                    nursery.cancel_scope.cancel()
                won += bool(result)
                if not result:
                    result.append(await stream.receive_some())
                assert result == [message]
    print(f"{won} of 200 receives were faster than their cancellation")


@in_trio
async def test_a_cancelled_operation_that_was_closed(trio_port: MakePort, net: Net) -> None:
    """Closing the stream is no cancellation, and does not look like one."""
    async with trio_port() as port:
        key = port.associate(net.pair()[0])
        receive = portio.Recv(key, bytearray(8))

        async def expect() -> None:
            with pytest.raises(portio.OperationCancelledError):
                await port.run(receive)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect)
            await wait_all_tasks_blocked()
            port.close_key(key)


@in_trio
async def test_a_thousand_tasks(trio_port: MakePort, tmp_path: Path) -> None:
    """They read, write and are cancelled at random; every byte arrives exactly once."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    blocks = 64
    (tmp_path / "file").write_bytes(pattern(blocks * 4096))
    cancelled = 0

    def soon() -> float:
        return trio.current_time() + dice.choice((0, 0, 0.0005, 0.002, 1000))

    async with trio_port() as port:
        file_key = port.associate(closing_file := portio.open(tmp_path / "file"))

        async def write(end: portio.PipeEnd, wanted: bytes) -> None:
            nonlocal cancelled
            key = port.associate(end)
            sent = 0
            while sent < len(wanted):
                size = min(dice.randrange(1, 30_000), len(wanted) - sent)
                moved: list[int] = []
                with trio.CancelScope(deadline=soon()) as scope:
                    data = memoryview(wanted)[sent : sent + size]
                    done = await port.complete(
                        portio.Write(key, data), lambda done: moved.append(done.nbytes)
                    )
                    moved.append(done.result())
                if scope.cancelled_caught:
                    cancelled += 1
                assert len(moved) <= 1
                sent += sum(moved)
                await trio.lowlevel.checkpoint()
            key.close()

        async def read(end: portio.PipeEnd, wanted: bytes) -> None:
            nonlocal cancelled
            key = port.associate(end)
            received = bytearray()
            buffer = bytearray(20_000)
            while True:
                with trio.CancelScope(deadline=soon()) as scope:
                    operation = portio.Read(key, memoryview(buffer)[: dice.randrange(1, 20_000)])
                    count = await port.run(operation)
                    received += buffer[:count]
                    if count == 0:
                        break
                cancelled += scope.cancelled_caught
            assert received == wanted
            key.close()

        async def look() -> None:
            nonlocal cancelled
            for _ in range(10):
                block = dice.randrange(blocks)
                buffer = bytearray(4096)
                with trio.CancelScope(deadline=soon()) as scope:
                    assert await port.run(portio.Read(file_key, buffer, block * 4096)) == 4096
                    assert buffer == pattern(4096, block * 4096)
                cancelled += scope.cancelled_caught

        async def wait() -> None:
            nonlocal cancelled
            for _ in range(10):
                with trio.CancelScope(deadline=soon()) as scope:
                    await port.run(portio.Timer(dice.uniform(0, 0.003)))
                cancelled += scope.cancelled_caught

        async with trio.open_nursery() as nursery:
            for number in range(200):
                reader, writer = portio.pipe()
                data = pattern(dice.randrange(150_000), 4 * number)
                nursery.start_soon(write, writer, data)
                nursery.start_soon(read, reader, data)
            for _ in range(300):
                nursery.start_soon(look)
                nursery.start_soon(wait)
        assert not port.waiting
        closing_file.close()
    assert cancelled > 100
    print(f"{cancelled} operations were cancelled")
    assert os.listdir(tmp_path) == ["file"]
