"""Operations that complete at once, again and again, keep no other from completing (O14)."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

import portio
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
