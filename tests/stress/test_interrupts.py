"""Signals whose handler raises, at any moment of a wait: no packet is lost (P8)."""

from __future__ import annotations

import gc
import itertools
import os
import queue
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import portio
from support.marks import needs_posix_signals
from support.threads import Background
from support.watch import LIMIT, fail_with_dump

pytestmark = needs_posix_signals
POSTS = 6000
RECEIVES = 3000
WAITS = 5000


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """What a handler raises within a callback of the collector, of which Hypothesis has one, goes
    nowhere but to `sys.unraisablehook`.
    """
    gc.disable()
    yield
    gc.enable()


class Interrupt(BaseException):
    """What the handler raises."""


class Alarm:
    """A timer that interrupts the main thread, but only inside `call`."""

    def __init__(self) -> None:
        self.armed = False
        self.interrupts = 0

    def handle(self, number: int, frame: object) -> None:
        if self.armed:
            self.armed = False
            self.interrupts += 1
            raise Interrupt

    def call(self, function: Callable[..., Any], argument: object) -> Any:
        """What the function returns, or None when it was interrupted.

        Python looks for signals after a call of C code, at the beginning of a
        function, and when it jumps back; between the return of a function that is
        written in Python, as all of these are, and the next line it does not.
        """
        result = None
        try:
            self.armed = True
            result = function(argument)
            self.armed = False
        except Interrupt:
            pass
        return result


def step(port: portio.Port) -> portio.Completion[Any]:
    """One step of a `for` statement, whose variable has what it gives before Python looks again."""
    for done in port:
        return done
    raise AssertionError("the port is open")


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    """An alarm that rings every few hundred microseconds."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread only")
    alarm = Alarm()
    before = signal.signal(signal.SIGALRM, alarm.handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
    yield alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("thread_bound", [False, True], ids=["shared", "thread_bound"])
@pytest.mark.parametrize("way", ["get", "get_many", "iterate"])
def test_takes(
    backend: str, alarm: Alarm, rng: random.Random, way: str, *, thread_bound: bool
) -> None:
    """Posted packets and receives come exactly once each, and in order."""
    ours, peer = socket.socketpair()
    with ours, peer, portio.Port(backend=backend, thread_bound=thread_bound) as port:

        def feed() -> None:
            for index in range(POSTS):
                port.post(None, index)
                if index % 50 == 0:
                    time.sleep(0.0005)  # so that there is something to wait for
            for _ in range(RECEIVES):
                peer.send(b"x")
                time.sleep(0)

        key = port.associate(ours)
        operation = portio.Recv(key, bytearray(1))
        port.submit(operation)
        posted = received = 0
        with Background(feed):
            end = time.monotonic() + LIMIT * 2
            while posted < POSTS or received < RECEIVES:
                if time.monotonic() > end:
                    fail_with_dump(f"{posted} of {POSTS} posted, {received} of {RECEIVES}")
                if way == "iterate":
                    result = alarm.call(step, port)
                elif way == "get":
                    result = alarm.call(port.get, rng.choice([None, 0, 0.0005]))
                else:
                    result = alarm.call(port.get_many, rng.randint(1, 40))
                if result is None:
                    continue
                for completion in result if isinstance(result, list) else [result]:
                    if completion.operation is None:
                        assert completion.nbytes == posted
                        posted += 1
                    else:
                        assert completion.operation is operation
                        assert completion.result() == 1
                        received += 1
                        if received < RECEIVES:
                            port.submit(operation)
        assert port.get(0) is None
        print(f"{alarm.interrupts} interrupts")
        assert alarm.interrupts


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("thread_bound", [False, True], ids=["shared", "thread_bound"])
def test_waits(backend: str, alarm: Alarm, *, thread_bound: bool) -> None:
    """An unqueued operation is waited for until it is there."""
    ours, peer = socket.socketpair()
    told: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def feed() -> None:
        while told.get():
            time.sleep(0.0002)
            peer.send(b"x")

    with ours, peer, portio.Port(backend=backend, thread_bound=thread_bound) as port:
        key = port.associate(ours)
        with Background(feed):
            for _ in range(RECEIVES // 2):
                operation = portio.Recv(key, bytearray(1))
                port.submit(operation, queued=False)
                told.put(True)
                end = time.monotonic() + LIMIT
                while (completion := alarm.call(operation.wait, None)) is None:
                    assert time.monotonic() < end, "a lost completion"
                assert completion.operation is operation
                assert completion.result() == 1
            told.put(False)
        assert port.get(0) is None
        assert alarm.interrupts


@pytest.mark.usefixtures("no_leak")
def test_takes_beside_workers(backend: str, alarm: Alarm) -> None:
    """Other threads take from the same port: everything reaches one of them."""
    stop = portio.CompletionKey("stop")
    with portio.Port(4, backend=backend) as port:

        def serve() -> list[int]:
            taken = []
            for completion in port:
                if completion.key is stop:
                    port.post(stop)
                    break
                taken.append(completion.nbytes)
            return taken

        def post() -> None:
            for index in range(POSTS):
                port.post(None, index)
                if index % 20 == 0:
                    time.sleep(0.0003)
            port.post(stop)

        workers = [Background(serve) for _ in range(2)]
        mine = []
        with Background(post):
            end = time.monotonic() + LIMIT * 2
            for turn in itertools.count():
                assert time.monotonic() < end
                batch = alarm.call(port.get_many, 3) if turn % 2 else alarm.call(port.get, None)
                batch = batch if isinstance(batch, list) else [batch] if batch else []
                mine += [each.nbytes for each in batch if each.key is not stop]
                if any(each.key is stop for each in batch):
                    port.post(stop)
                    break
        taken = [number for worker in workers for number in worker.result()]
    assert sorted(mine + taken) == list(range(POSTS))


class Storm:
    """Signals as fast as they come, of which up to two interrupt one call."""

    def __init__(self) -> None:
        self.raises = 0
        self.calls = 0
        self.interrupts = 0

    def handle(self, number: int, frame: object) -> None:
        self.calls += 1
        if self.raises:
            self.raises -= 1
            self.interrupts += 1
            raise Interrupt

    def call(self, function: Callable[[float], object], argument: float) -> None:
        try:
            try:
                self.raises = 2
                function(argument)
                self.raises = 0
            except Interrupt:  # while the second may still come
                self.raises = 0
        except Interrupt:
            self.raises = 0


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("thread_bound", [False, True], ids=["shared", "thread_bound"])
@pytest.mark.parametrize("way", ["get", "get_many", "wait"])
def test_wakeup_descriptor(
    backend: str, rng: random.Random, way: str, *, thread_bound: bool
) -> None:
    """Wherever signals raise, the program's own descriptor is back, and gets every number."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread only")
    storm = Storm()
    reader, own = os.pipe2(os.O_NONBLOCK)
    told = 0
    before = signal.signal(signal.SIGALRM, storm.handle)
    signal.set_wakeup_fd(own)
    try:
        with portio.Port(backend=backend, thread_bound=thread_bound) as port:
            operation = portio.Timer(1000)
            port.submit(operation, queued=False)
            functions: dict[str, Callable[[float], object]] = {
                "get": port.get,
                "get_many": lambda timeout: port.get_many(timeout=timeout),
                "wait": operation.wait,
            }
            for turn in range(WAITS):
                if turn % 100 == 0:
                    pace = rng.uniform(3e-5, 2e-4)
                    signal.setitimer(signal.ITIMER_REAL, pace, pace)
                storm.call(functions[way], rng.choice([0, 1e-6, 1e-5, 5e-5]))
                assert signal.set_wakeup_fd(own) == own
                if turn % 100 == 99:
                    told += drain(reader)
            signal.setitimer(signal.ITIMER_REAL, 0)
            functions[way](0.001)  # passes on what a second exception has kept back
            told += drain(reader)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGALRM, before)
        os.close(reader)
        os.close(own)
    print(f"{storm.calls} signals, {storm.interrupts} interrupts, {told} told")
    assert storm.interrupts
    assert told >= storm.calls


def drain(reader: int) -> int:
    """How many bytes there are."""
    try:
        return len(os.read(reader, 65536))
    except BlockingIOError:
        return 0
