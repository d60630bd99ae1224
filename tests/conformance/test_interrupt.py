"""P8 interrupt: Ctrl-C in the main thread, in a process of its own."""

from __future__ import annotations

import signal
import time

import pytest

from support.children import Child
from support.watch import LIMIT, wait_until_task_blocked

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="signals of POSIX are sent to a child"
)

LATENCY = """
    import sys, threading, time, portio
    backend, role = sys.argv[1:]
    port = portio.Port(4, backend=backend, thread_bound=role == "thread_bound")
    unqueued = portio.Timer(1000)
    port.submit(unqueued, queued=False)
    wait = {"get_many": port.get_many, "wait": unqueued.wait,
            "iterate": lambda: next(iter(port))}.get(role, port.get)
    if role == "beside another":      # the other thread watches the system, we are parked
        threading.Thread(target=port.get, daemon=True).start()
    if role == "timed":
        wait = lambda: port.get(1000)
    print("start")
    for _ in range(5):
        input()
        try:
            print("waiting")
            wait()
        except KeyboardInterrupt:
            print(time.monotonic())
    port.post(None, 42)
    if role == "beside another":
        port.post(None, 42)
    print(port.get().nbytes)
    port.close()
"""


@pytest.mark.core
@pytest.mark.parametrize(
    "role", ["alone", "thread_bound", "timed", "get_many", "iterate", "wait", "beside another"]
)
def test_p8_interrupts_a_blocking_call_within_100_ms(backend: str, role: str) -> None:
    latencies = []
    with Child(LATENCY, backend, role) as child:
        child.expect("start")
        for _ in range(5):
            child.say("go")
            child.expect("waiting")
            wait_until_task_blocked(child.pid, child.pid)
            sent = time.monotonic()
            child.signal(signal.SIGINT)
            latencies.append(float(child.line()) - sent)
        child.expect("42")
        child.finish()
    # The middle one: a machine that is busy with something else may delay a few.
    assert sorted(latencies)[2] < 0.1, latencies


BEGINNING = """
    import os, sys, threading, portio
    backend, role = sys.argv[1:]
    port = portio.Port(4, backend=backend, thread_bound="thread_bound" in role)
    unqueued = portio.Timer(1000)
    port.submit(unqueued, queued=False)
    wait = unqueued.wait if "wait" in role else port.get
    if "beside another" in role:
        threading.Thread(target=port.get, daemon=True).start()
    while True:
        try:
            os.write(1, b"waiting\\n")
            wait()
        except KeyboardInterrupt:
            if os.read(0, 1) != b"+":
                break
    port.close()
"""


@pytest.mark.parametrize(
    "role",
    [
        "alone",
        "thread_bound",
        "beside another",
        "wait",
        "wait, thread_bound",
        "wait beside another",
    ],
)
def test_p8_an_interrupt_that_comes_as_the_wait_begins_is_not_missed(
    backend: str, role: str
) -> None:
    """Between the last look at the signals and the sleep there must be no gap."""
    with Child(BEGINNING, backend, role) as child:
        for number in range(300):
            child.expect("waiting")
            # A little later each time: from before the call to well within it.
            until = time.perf_counter() + number * 1e-6
            while time.perf_counter() < until:
                pass
            child.signal(signal.SIGINT)
            child.write("+")
            if not child.speaks_within(LIMIT):  # it sleeps, and does not know
                pytest.fail(f"interrupt {number} was missed")
        child.expect("waiting")
        wait_until_task_blocked(child.pid, child.pid)
        child.signal(signal.SIGINT)
        child.write(".")
        child.finish()


ELSEWHERE = """
    import os, queue, signal, sys, threading, portio
    from support.watch import wait_until_task_blocked
    backend, role = sys.argv[1:]
    concurrency = 1 if "at the cap" in role else 4
    port = portio.Port(concurrency, backend=backend, thread_bound="thread_bound" in role)
    unqueued = portio.Timer(1000)
    port.submit(unqueued, queued=False)
    wait = unqueued.wait if "wait" in role else lambda: port.get(1000)
    busy, orders = queue.SimpleQueue(), queue.SimpleQueue()

    def receive():              # the thread that the system gives the signals to
        while orders.get():
            wait_until_task_blocked("self", os.getpid())
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    def work():                 # has a place, and does not look at the system
        port.get()
        busy.put(True)
        threading.Event().wait()

    threading.Thread(target=receive, daemon=True).start()
    if "beside another" in role:
        threading.Thread(target=port.get, daemon=True).start()
    if "at the cap" in role:
        threading.Thread(target=work, daemon=True).start()
        port.post()
        busy.get()
    for _ in range(3):
        try:
            orders.put(True)
            wait()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    orders.put(False)
    os._exit(0)
"""


@pytest.mark.parametrize(
    "role",
    [
        "alone",
        "thread_bound",
        "beside another",
        "at the cap",
        "wait",
        "wait, thread_bound",
        "wait beside another",
        "wait at the cap",
    ],
)
def test_p8_a_signal_that_another_thread_receives_ends_the_wait(backend: str, role: str) -> None:
    """The system gives a signal to any thread; it disturbs the main thread's sleep in none."""
    with Child(ELSEWHERE, backend, role) as child:
        for _ in range(3):
            child.expect("interrupted")
        child.finish()


STORM = """
    import signal, sys, threading, portio
    backend, role, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    port = portio.Port(4, backend=backend, thread_bound=role == "thread_bound")
    taken, armed = [], []

    def interrupt(number, frame):
        if armed:               # only inside the try below, and once for each time
            armed.clear()
            raise KeyboardInterrupt

    def post():
        for number in range(count):
            port.post(None, number, number)

    def take_one():
        # Between get's return and append the interpreter looks at no signal.
        taken.append(port.get())

    def take_many():
        taken.extend(port.get_many(7))

    take = take_many if role == "many" else take_one
    signal.signal(signal.SIGINT, interrupt)
    threading.Thread(target=post).start()
    print("start")
    interrupts = 0
    while len(taken) < count:
        try:
            armed.append(True)
            # No condition at the loop's back edge: CPython 3.12 and later look for
            # signals there, and outside the try.
            while True:
                if len(taken) >= count:
                    break
                take()
            armed.clear()
        except KeyboardInterrupt:
            interrupts += 1
    numbers = [packet.payload for packet in taken]
    missing = sorted(set(range(count)) - set(numbers))
    assert not missing, f"lost, with {interrupts} interrupts: {missing[:20]}"
    doubled = len(numbers) - len(set(numbers))
    assert not doubled, f"doubled, with {interrupts} interrupts: {doubled}"
    jumps = [pair for pair in zip(numbers, numbers[1:]) if pair[1] != pair[0] + 1]
    assert not jumps, f"out of order, with {interrupts} interrupts: {jumps[:20]}"
    print("all there after", interrupts, "interrupts")
    sys.stdin.read()
"""


@pytest.mark.parametrize("role", ["shared", "thread_bound", "many"])
def test_p8_an_interrupt_loses_no_packet(backend: str, role: str) -> None:
    count = 20_000
    with Child(STORM, backend, role, count) as child:
        child.expect("start")
        while not child.speaks_within(0):
            child.signal(signal.SIGINT)
            time.sleep(0.0005)  # how often, not how long: any pace must do
        assert child.line().startswith("all there")


HANDLER = """
    import signal, sys, portio
    port = portio.Port(backend=sys.argv[1], thread_bound=sys.argv[2] == "thread_bound")
    seen = []

    def handler(number, frame):
        seen.append(number)
        port.post(None, len(seen))

    signal.signal(signal.SIGUSR1, handler)
    signal.signal(signal.SIGUSR2, lambda *_: seen.append(0))
    print("waiting")
    assert port.get().nbytes == 1           # the handler returned: the wait went on
    print("waiting")
    assert port.get(1000).nbytes == len(seen) == 3
    print("done")
"""


@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_p8_a_handler_that_returns_lets_the_wait_go_on(backend: str, kind: str) -> None:
    """As everywhere in Python since PEP 475; and a handler may post."""
    with Child(HANDLER, backend, kind) as child:
        child.expect("waiting")
        wait_until_task_blocked(child.pid, child.pid)
        child.signal(signal.SIGUSR1)
        child.expect("waiting")
        wait_until_task_blocked(child.pid, child.pid)
        child.signal(signal.SIGUSR2)
        wait_until_task_blocked(child.pid, child.pid)
        child.signal(signal.SIGUSR1)
        child.expect("done")
        child.finish()


NESTED = """
    import signal, sys, portio
    port = portio.Port(backend=sys.argv[1], thread_bound=sys.argv[2] == "thread_bound")
    inner = []

    def handler(number, frame):
        for nbytes in (1, 2, 3):
            port.post(None, nbytes)
        inner.append(port.get(0).nbytes)

    signal.signal(signal.SIGUSR1, handler)
    print("waiting")
    outer = port.get().nbytes
    rest = port.get_many(10, 0)
    assert inner + [outer] + [packet.nbytes for packet in rest] == [1, 2, 3], (inner, outer, rest)
    print("done")
"""


@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_p8_a_handler_may_take_packets_itself(backend: str, kind: str) -> None:
    """The wait that it interrupted sees what the handler has left."""
    with Child(NESTED, backend, kind) as child:
        child.expect("waiting")
        wait_until_task_blocked(child.pid, child.pid)
        child.signal(signal.SIGUSR1)
        child.expect("done")
        child.finish()


TIMED = """
    import signal, sys, time, portio
    port = portio.Port(backend=sys.argv[1], thread_bound=sys.argv[2] == "thread_bound")
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    start = time.monotonic()
    assert port.get(0.25) is None
    spent = time.monotonic() - start
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert spent >= 0.25, spent
    print("done")
"""


@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_p8_signals_neither_shorten_nor_restart_a_timed_wait(backend: str, kind: str) -> None:
    with Child(TIMED, backend, kind) as child:
        child.expect("done")
        child.finish()
