"""Connections that come with their keys, under real signals: none is lost or closed twice (P8)."""

from __future__ import annotations

import gc
import random
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import portio
from portio import accelerator
from portio.registry import registry
from support.marks import needs_c, needs_posix_signals
from support.watch import LIMIT

pytestmark = needs_posix_signals
CONNECTIONS = 1500


class Interrupt(BaseException):
    """What the handler raises."""


class Alarm:
    """Rings once, some time after a call has begun; the handler raises."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.armed = False
        self.interrupts = 0

    def handle(self, number: int, frame: object) -> None:
        if self.armed:
            self.armed = False
            self.interrupts += 1
            raise Interrupt

    def call(self, function: Callable[[], Any]) -> Any:
        """What the function returns, or None when it was interrupted."""
        result = None
        try:
            self.armed = True
            signal.setitimer(signal.ITIMER_REAL, self.rng.uniform(1e-6, 6e-5))
            result = function()
            self.armed = False
        except Interrupt:
            pass
        return result


@pytest.fixture
def alarm(rng: random.Random) -> Iterator[Alarm]:
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread only")
    alarm = Alarm(rng)
    before = signal.signal(signal.SIGALRM, alarm.handle)
    gc.disable()  # what is raised within a callback of the collector goes nowhere
    yield alarm
    gc.enable()
    alarm.armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("no_leak")
# The key before ends as the operation gets its next result, and what is raised there is only told.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("form", [pytest.param("C", marks=needs_c), "Python"])
@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_connections(backend: str, alarm: Alarm, rng: random.Random, kind: str, form: str) -> None:
    """Taken, asked for their handles, and closed; a bystander gets each number that is free."""
    with (
        warnings.catch_warnings(),
        socket.create_server(("127.0.0.1", 0)) as listener,
        portio.Port(backend=backend, thread_bound=kind == "thread_bound") as port,
    ):
        warnings.simplefilter("ignore", ResourceWarning)
        if form == "Python":
            accelerator.disconnect(port)
        listening = port.associate(listener)
        accept = portio.AcceptKey(listening, multishot=rng.random() < 0.5)
        for _ in range(CONNECTIONS):
            with socket.create_connection(listener.getsockname(), timeout=LIMIT) as peer:
                if not accept.pending:
                    port.submit(accept)
                while (done := alarm.call(lambda: port.get(LIMIT))) is None:
                    pass
                assert done.operation is accept
                key = done.result()
                del done
                receive = portio.Recv(key, bytearray(1)) if rng.random() < 0.5 else None
                if receive is not None:
                    port.submit(receive)
                if rng.random() < 0.5:
                    handle = alarm.call(lambda key=key: key.handle) or key.handle
                    assert handle.getpeername() == peer.getsockname()
                    del handle
                alarm.call(key.close)
                with socket.socket() as bystander:  # it has the number, if that is free
                    key.close()
                    assert key.closed
                    assert peer.recv(1) == b""
                    if receive is not None:
                        done = port.get(LIMIT)
                        while done is not None and done.operation is accept:
                            pytest.fail("there was no other client")
                        assert done is not None
                        assert isinstance(done.error, portio.OperationCancelledError)
                        del done
                    bystander.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
                del key, receive
        print(f"{alarm.interrupts} interrupts")
        assert alarm.interrupts
        assert port.get(0) is None
        keys = [entry() for entry in registry.entries.values()]
        assert [key for key in keys if key is not None and key.port is port] == [listening]
        if accept.pending:
            accept.cancel()
            done = port.get(LIMIT)
            assert done is not None
            assert done.last
