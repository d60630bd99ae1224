"""Operations that complete at once, again and again, keep no other from completing (O14)."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from typing import Any

import pytest

import portio
from portio import backends
from portio.backends import switches
from support import handles
from support.watch import LIMIT


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("thread_bound", [False, True], ids=["shared", "thread_bound"])
@pytest.mark.parametrize("many", [False, True], ids=["get", "get_many"])
def test_nothing_starves(backend: str, *, thread_bound: bool, many: bool) -> None:
    """A port that always has something to give still gives everything."""
    ended, peer = socket.socketpair()
    quiet, speaker = socket.socketpair()
    reader, writer = portio.pipe()
    with (
        ended,
        quiet,
        speaker,
        reader,
        writer,
        portio.Port(backend=backend, thread_bound=thread_bound) as port,
    ):
        peer.close()
        key = port.associate(ended)
        quiet_key = port.associate(quiet)
        pipe_key = port.associate(reader)
        others: set[portio.Operation[Any]] = {
            portio.Recv(quiet_key, bytearray(8)),
            portio.Shutdown(quiet_key),
            portio.Read(pipe_key, bytearray(8)),
            portio.Timer(0.02),
        }
        port.submit(*others)
        speaker.send(b"hello")
        handles.write(writer, b"hello")
        end = time.monotonic() + LIMIT
        restless = [portio.Recv(key, bytearray(8)) for _ in range(4)]  # at once: the end
        port.submit(*restless)
        while others:
            assert time.monotonic() < end, f"starving: {others}"
            for completion in port.get_many(4) if many else [port.get()]:
                assert completion is not None
                operation = completion.operation
                assert operation is not None
                completion.result()
                if operation in others:
                    others.remove(operation)
                else:
                    port.submit(operation)


def _defers() -> bool:
    """Whether a ring makes completions only when its owner asks, and a few at a time."""
    switched_off = "no-defer_taskrun" in os.environ.get(switches.VARIABLE, "")
    return "defer_taskrun" in backends.available()["io_uring"].features and not switched_off


@pytest.mark.skipif(not _defers(), reason="only a ring with defer_taskrun puts off what it has")
@pytest.mark.usefixtures("no_leak")
def test_who_was_put_off_comes_before_who_comes_again(backend: str) -> None:
    """A receive that is started while the ring has work left does not overtake that."""
    if backend != "io_uring":
        pytest.skip("only a ring puts off what it has")
    put_off, restless = 200, 60
    with (
        ExitStack() as stack,
        portio.Port(backend=backend, thread_bound=True, lazy_submit=True) as port,
    ):

        def receive() -> tuple[portio.Recv, socket.socket]:
            ours, peer = map(stack.enter_context, socket.socketpair())
            return portio.Recv(port.associate(ours), bytearray(8)), peer

        patient = [receive() for _ in range(put_off)]
        port.submit(*(operation for operation, _ in patient))
        assert port.get_many(timeout=0) == []
        for _, peer in patient:
            peer.send(b"x")
        again = [receive() for _ in range(restless)]
        for operation, peer in again:
            peer.close()  # it completes at once, whenever it is started
            port.submit(operation)
        waiting: set[Any] = {operation for operation, _ in patient}
        overtook = 0
        while waiting:
            for done in port.get_many():
                if done.operation in waiting:
                    waiting.remove(done.operation)
                else:
                    overtook += 1
                    assert done.operation is not None
                    port.submit(done.operation)
        assert overtook <= 2 * restless
