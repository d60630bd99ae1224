"""How a port of a run ends: closed by whatever hand, failed, or used where it is a stranger."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import socket
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import portio
from portio.fetching import Fetcher
from portio.trio import (
    PipeReceiveStream,
    PipeSendStream,
    SocketStream,
    TrioPort,
    current_port,
    open_pipe,
    run,
)
from portio.trio.wakes import VARIABLE, DescriptorWake
from support.marks import needs_chosen_numbers
from support.net import Net
from support.system import LOCAL, WINDOWS
from support.trio_runs import in_trio
from support.watch import LIMIT

MakePort = Callable[[], AbstractAsyncContextManager[TrioPort]]


class Rounds(trio.abc.Instrument):
    """Counts the rounds of trio's loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        del timeout
        self.count += 1


async def expect_closed(wait: Callable[[], Awaitable[object]], errors: list[OSError]) -> None:
    with pytest.raises(portio.PortClosedError) as caught:
        await wait()
    errors.append(caught.value)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110 (nobody could set an event)
            await trio.sleep(0.001)


# Closed


@in_trio
async def test_nothing_turns_when_the_port_itself_was_closed(trio_port: MakePort) -> None:
    rounds = Rounds()
    trio.lowlevel.add_instrument(rounds)
    async with trio_port() as port:
        await port.run(portio.Timer(0))
        port.port.close()
        before = rounds.count
        await trio.sleep(0.1)
        assert rounds.count - before < 50
        port.close()


@needs_chosen_numbers
@in_trio
async def test_the_number_of_a_closed_port_is_free(trio_port: MakePort) -> None:
    """Whoever gets it at once can wait for it, and nobody disturbs him."""
    async with trio_port() as port:
        await port.run(portio.Timer(0))
        number = port.port.fileno()
        reader, writer = os.pipe()
        port.port.close()
        os.dup2(reader, number)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.wait_readable, number)
                await wait_all_tasks_blocked()
                port.close()
                async with trio_port() as other:
                    await other.run(portio.Timer(0.001))
                os.write(writer, b"x")
        finally:
            for descriptor in (reader, writer, number):
                os.close(descriptor)


@pytest.mark.parametrize("behind_our_back", [False, True])
@in_trio
async def test_every_task_gets_an_error_of_its_own(
    trio_port: MakePort, behind_our_back: bool
) -> None:
    errors: list[OSError] = []
    async with trio_port() as port:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(expect_closed, lambda: port.run(portio.Timer(1000)), errors)
                nursery.start_soon(expect_closed, port.get, errors)
            await wait_all_tasks_blocked()
            (port.port if behind_our_back else port).close()
        assert len({id(error) for error in errors}) == 6
        assert port.closed
        assert not port.waiting


@in_trio
async def test_leaving_a_port_is_a_checkpoint(trio_port: MakePort) -> None:
    async with trio_port() as port:
        with assert_checkpoints():
            await port.__aexit__(None, None, None)
        with assert_checkpoints(), pytest.raises(portio.PortClosedError):
            await port.get()


def test_a_port_of_the_run_after_the_first(
    backend: str, wake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTIO_BACKEND", backend)

    async def main() -> None:
        one, other = socket.socketpair()
        with one, other:
            async with current_port() as first:
                key = first.associate(one)
            assert current_port() is not first
            assert current_port() is current_port()
            await run(portio.Timer(0))
            with pytest.raises(portio.PortClosedError):
                await run(portio.Recv(key, bytearray(1)))

    trio.run(main)


# Failed


class Breaker:
    """Lets steps of taking packets fail, for ports that are broken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.broken: list[portio.Port] = []

    def patch(self, owner: type, step: str, port_of: Callable[[Any], portio.Port]) -> None:
        works = getattr(owner, step)

        def fail(self_: Any, *arguments: Any) -> Any:
            if port_of(self_) in self.broken:
                raise MemoryError("no memory for packets")
            return works(self_, *arguments)

        self._monkeypatch.setattr(owner, step, fail)


@pytest.fixture
def breaker(monkeypatch: pytest.MonkeyPatch) -> Breaker:
    return Breaker(monkeypatch)


async def fail_to_take(make_port: MakePort, breaker: Breaker, *, submitting: bool = False) -> None:
    """Nothing is pending any more when the tasks are let go: the data stay where they are."""
    ours, peer = socket.socketpair()
    errors: list[OSError] = []
    async with make_port() as port, SocketStream(ours, on=port) as stream:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError) as caught:
                await stream.receive_some()
            assert isinstance(caught.value.__cause__, MemoryError)
            assert not stream._receive.pending

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            breaker.broken.append(port.port)
            if submitting:
                port.submit(portio.Timer(1000))  # for all the loop knows, complete by then
            else:
                port.port.post()
            await expect_closed(lambda: port.run(portio.Timer(1000)), errors)
            assert port.closed
        assert isinstance(errors[0].__cause__, MemoryError)
        await expect_closed(port.get, errors)
        assert "no memory" in str(errors[1])
        peer.sendall(b"for the next")
        assert stream.socket.recv(100) == b"for the next"
        async with make_port() as other:
            await other.run(portio.Timer(0))
    peer.close()


@pytest.mark.skipif(WINDOWS, reason="a port has no descriptor there: see the thread's failures")
@pytest.mark.parametrize("where", ["before the wait", "after the wait", "in the watcher"])
@pytest.mark.parametrize("wake", ["descriptor"], indirect=True)
@in_trio
async def test_taking_packets_fails(
    trio_port: MakePort,
    wake: str,
    where: str,
    breaker: Breaker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    del wake
    caplog.set_level(logging.CRITICAL, "portio.trio")  # `test_a_failure_is_logged` looks for it
    breaker.patch(portio.Port, "get_many", lambda port: port)
    if where == "in the watcher":
        monkeypatch.setattr(DescriptorWake, "after_io_wait", lambda *_: None)
    await fail_to_take(trio_port, breaker, submitting=where == "before the wait")


@pytest.mark.parametrize("step", ["fetch", "take"])
@pytest.mark.parametrize("wake", ["thread"], indirect=True)
@in_trio
async def test_fetching_packets_fails(
    trio_port: MakePort,
    wake: str,
    step: str,
    breaker: Breaker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the thread that waits in the port, or in trio's."""
    del wake
    caplog.set_level(logging.CRITICAL, "portio.trio")
    breaker.patch(Fetcher, step, lambda fetcher: fetcher._port)
    await fail_to_take(trio_port, breaker)


@in_trio
async def test_a_failure_is_logged(
    trio_port: MakePort, wake: str, breaker: Breaker, caplog: pytest.LogCaptureFixture
) -> None:
    if wake == "thread":
        breaker.patch(Fetcher, "fetch", lambda fetcher: fetcher._port)
    else:
        breaker.patch(portio.Port, "get_many", lambda port: port)
    async with trio_port() as port:
        breaker.broken.append(port.port)
        port.port.post()
        with pytest.raises(portio.PortClosedError):
            await port.run(portio.Timer(1000))
        (record,) = caplog.records
        assert record.name == "portio.trio"
        assert record.exc_info is not None
        assert record.exc_info[0] is MemoryError


@in_trio
async def test_another_thread_closes_the_port_at_any_time(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a thread waits, any thread may; nobody waits for ever, and nothing is left behind."""
    monkeypatch.setenv(VARIABLE, "thread")
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    print(f"seed {seed}")
    for _ in range(30):
        port = TrioPort(backend=backend)
        sender, receiver = open_pipe(on=port)

        async def send(stream: PipeSendStream = sender) -> None:
            with contextlib.suppress(trio.ClosedResourceError):
                while True:
                    await stream.send_all(b"x")

        async def receive(stream: PipeReceiveStream = receiver) -> None:
            with contextlib.suppress(trio.ClosedResourceError):
                while True:
                    await stream.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive)
            nursery.start_soon(expect_closed, port.get, [])
            for _ in range(dice.randrange(30)):
                await trio.lowlevel.checkpoint()
            await trio.to_thread.run_sync(port.port.close)
            if dice.randrange(2):
                port.close()
        assert not port.waiting
        await sender.aclose()
        await receiver.aclose()


# In another run


@in_trio
async def test_another_run_is_refused(trio_port: MakePort, net: Net) -> None:
    """It neither waits nor disturbs the run that has made the port."""
    ours, peer = net.pair(LOCAL)
    async with trio_port() as port:
        stream = SocketStream(ours, on=port)
        sender, receiver = open_pipe(on=port)
        timer = portio.Timer(1000)

        async def close() -> None:
            port.close()

        async def close_stream() -> None:
            stream.close()

        async def submit() -> None:
            port.submit(timer)

        async def associate() -> None:
            SocketStream(peer, on=port)

        async def foreign() -> None:
            for use in (
                *(
                    close,
                    close_stream,
                    submit,
                    associate,
                    port.get,
                    stream.receive_some,
                    stream.aclose,
                ),
                *(receiver.aclose, stream.send_eof),
                lambda: port.run(portio.Timer(0)),
                lambda: stream.send_all(b"x"),
                lambda: sender.send_all(b"x"),
            ):
                with trio.fail_after(20), pytest.raises(RuntimeError, match=r"run|thread"):
                    await use()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_closed, port.get, [])
            nursery.start_soon(expect_closed, lambda: port.run(portio.Timer(1000)), [])
            await wait_all_tasks_blocked()
            await trio.to_thread.run_sync(trio.run, foreign)
            assert not port.closed
            assert not timer.pending
            await stream.send_all(b"still open")
            assert peer.recv(100) == b"still open"
            await stream.aclose()
            assert peer.recv(100) == b""
            await sender.aclose()
            await receiver.aclose()
            port.close()


# The end of a run


def test_a_port_that_is_first_used_in_a_late_finalizer(
    backend: str, wake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTIO_BACKEND", backend)
    kept: list[Any] = []

    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            with trio.CancelScope(shield=True):
                await run(portio.Timer(0.001))
                sender, receiver = open_pipe()
                await sender.send_all(b"late")
                kept.append(await receiver.receive_some())
                await sender.aclose()
                await receiver.aclose()
                kept.append(current_port())

    async def main() -> None:
        kept.append(generate())
        await anext(kept[0])

    trio.run(main)
    assert kept[1] == b"late"
    assert kept[2].closed


@pytest.mark.parametrize("end", ["close", "close the port itself", "run"])
def test_accepted_and_not_taken(backend: str, wake: str, net: Net, end: str) -> None:
    """Nobody will ever see the connection, so it is closed (contract P7)."""
    listening = net.listener()
    clients: list[socket.socket] = []

    async def main() -> None:
        port = TrioPort(backend=backend)
        key = port.associate(listening)
        port.submit(portio.Accept(key))
        clients.append(net.client(listening))
        await until(lambda: bool(port._unclaimed))
        if end == "close":
            port.close()
        elif end == "close the port itself":
            port.port.close()
            await until(lambda: not port._unclaimed)  # a thread may have to say so

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        trio.run(main)
        gc.collect()
    assert not [str(warning.message) for warning in found]
    assert clients[0].recv(1) == b""


# Ctrl-C


@in_trio
async def test_nothing_is_lost_to_ctrl_c(
    trio_port: MakePort, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a completion and its result, and amid closing, none is raised."""
    protected: list[bool] = []

    def look(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            protected.append(trio.lowlevel.currently_ki_protected())
            return function(*arguments)

        return called

    async with trio_port() as port:
        sender, receiver = open_pipe(on=port)
        monkeypatch.setattr(portio.Completion, "result", look(portio.Completion.result))
        await run(portio.Timer(0))
        await port.run(portio.Timer(0))
        port.port.post()
        monkeypatch.setattr(
            "portio.trio.ports.cancel_shielded_checkpoint",
            look(trio.lowlevel.cancel_shielded_checkpoint),
        )
        await port.get()
        monkeypatch.setattr(portio.CompletionKey, "close", look(portio.CompletionKey.close))
        sender.close()
        await receiver.aclose()
        monkeypatch.setattr(portio.Port, "submit", look(portio.Port.submit))
        port.submit(portio.Timer(0))
    assert protected == [True] * 6
