"""P8 and the program's own `signal.set_wakeup_fd`: a port borrows it, and nobody notices."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import portio
from support.children import Child, run_script
from support.watch import wait_until_task_blocked

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="Windows wakes the main thread by itself"
)
kinds = pytest.mark.parametrize("kind", ["shared", "thread_bound"])


class Heard(BaseException):
    """What a handler raises."""


@pytest.fixture(params=["shared", "thread_bound"])
def port(request: pytest.FixtureRequest, make_port: Callable[..., portio.Port]) -> portio.Port:
    """A port of either kind, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread only")
    return make_port(thread_bound=request.param == "thread_bound")


@pytest.fixture
def alarms() -> Iterator[None]:
    """A signal some time from now, if a test wants one, has a handler that raises."""

    def handle(number: int, frame: object) -> None:
        raise Heard

    before = signal.signal(signal.SIGALRM, handle)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def waits(port: portio.Port, where: str) -> Callable[[float | None], object]:
    """The ways to wait for so many seconds."""
    operation = portio.Timer(1000)
    port.submit(operation, queued=False)
    ways: dict[str, Callable[[float | None], object]] = {
        "get": port.get,
        "get_many": lambda timeout: port.get_many(timeout=timeout),
        "wait": operation.wait,
    }
    return ways[where]


@pytest.mark.usefixtures("alarms")
@pytest.mark.parametrize("where", ["get", "get_many", "wait"])
def test_p8_no_wakeup_descriptor_is_left(port: portio.Port, where: str) -> None:
    """However a wait ends: by the time, by a handler, by a packet, by closing."""
    wait = waits(port, where)
    assert not wait(0.01)
    assert signal.set_wakeup_fd(-1) == -1
    for _ in range(3):
        with pytest.raises(Heard):  # noqa: PT012  (also if the machine is slow and the alarm comes first)
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            wait(None)
        assert signal.set_wakeup_fd(-1) == -1
    if where == "wait":
        return
    port.submit(portio.Timer(0.01))
    assert wait(None)
    assert signal.set_wakeup_fd(-1) == -1
    if not port.thread_bound:
        closer = threading.Timer(0.05, port.close)
        closer.start()
        with pytest.raises(portio.PortClosedError):
            wait(None)
        closer.join()
        assert signal.set_wakeup_fd(-1) == -1


OWN = """
    import os, signal, socket, sys, portio
    backend, kind, what, path = sys.argv[1:]
    port = portio.Port(backend=backend, thread_bound=kind == "thread_bound")
    if what == "pipe":
        reader, own = os.pipe2(os.O_NONBLOCK)
    elif what == "socket":
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        peer.setblocking(False)
        reader, own = peer.fileno(), ours.fileno()
    else:
        own = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK)
        reader = os.open(path, os.O_RDONLY)
    signal.set_wakeup_fd(own)

    def handle(number, frame):
        port.post(None, number)

    signal.signal(signal.SIGUSR1, handle)
    told = b""
    for number in (signal.SIGINT, signal.SIGUSR1) * 3:
        print("waiting", flush=True)
        try:
            assert port.get().nbytes == signal.SIGUSR1 == number
        except KeyboardInterrupt:
            assert number == signal.SIGINT
        assert signal.set_wakeup_fd(own) == own
        told += os.read(reader, 100)
    assert told == bytes((signal.SIGINT, signal.SIGUSR1) * 3), told
    print("done", flush=True)
"""


@kinds
@pytest.mark.parametrize("what", ["pipe", "socket", "file"])
def test_p8_a_program_keeps_its_own_wakeup_descriptor(
    backend: str, kind: str, what: str, tmp_path: Path
) -> None:
    """It is in place after each wait, and gets the numbers of the signals."""
    with Child(OWN, backend, kind, what, tmp_path / "file") as child:
        for number in (signal.SIGINT, signal.SIGUSR1) * 3:
            child.expect("waiting")
            wait_until_task_blocked(child.pid, child.pid)
            child.signal(number)
        child.expect("done")
        child.finish()


CHANGING = """
    import os, signal, sys, portio
    backend, kind, change = sys.argv[1:]
    port = portio.Port(backend=backend, thread_bound=kind == "thread_bound")
    _, own = os.pipe2(os.O_NONBLOCK)
    _, other = os.pipe2(os.O_NONBLOCK)

    def handle(number, frame):
        if change == "another":
            signal.set_wakeup_fd(other)
        elif change == "none":
            signal.set_wakeup_fd(-1)
        else:                   # the program's is gone when it is to be put back
            os.close(own)
        port.post()

    signal.signal(signal.SIGUSR1, handle)
    signal.set_wakeup_fd(own)
    print("waiting", flush=True)
    port.get()
    wanted = {"another": other, "none": -1, "closed": -1}[change]
    current = signal.set_wakeup_fd(-1)
    assert current == wanted, (current, wanted)
    print("done", flush=True)
"""


@kinds
@pytest.mark.parametrize("change", ["another", "none", "closed"])
def test_p8_a_handler_may_change_the_wakeup_descriptor(
    backend: str, kind: str, change: str
) -> None:
    with Child(CHANGING, backend, kind, change) as child:
        child.expect("waiting")
        wait_until_task_blocked(child.pid, child.pid)
        child.signal(signal.SIGUSR1)
        child.expect("done")
        child.finish()


# Of CPython alone: whether it notices a signal in a child that another thread than the
# main thread has forked, when yet another thread receives it.
HANDLERS_AFTER_FORK = """
    import os, signal, threading, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)

    def in_child():
        seen = []
        signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))

        def receive():
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

        thread = threading.Thread(target=receive)
        thread.start()
        thread.join()
        end = time.monotonic() + 2
        while not seen and time.monotonic() < end:
            pass
        os._exit(0 if seen else 1)

    def fork():
        child = os.fork()
        if child == 0:
            in_child()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print("ran" if status == 0 else "did not run", flush=True)

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
"""

FORKING = """
    import os, signal, sys, threading, warnings, portio
    from support.watch import wait_until_task_blocked
    warnings.simplefilter("ignore", DeprecationWarning)
    backend, own = sys.argv[1], -1
    if sys.argv[2] == "own":
        _, own = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(own)
    port = portio.Port(backend=backend)

    def in_child():
        # This thread is the main thread now, and the parent's sleeps in `get`.
        assert signal.set_wakeup_fd(-1) == own
        if own >= 0:
            signal.set_wakeup_fd(own)
        signal.signal(signal.SIGUSR1, lambda *_: mine.post(None, 7))
        mine = portio.Port(backend=backend)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert mine.get().nbytes == 7
        main = threading.get_native_id()

        def receive():
            wait_until_task_blocked("self", main)
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

        threading.Thread(target=receive).start()
        assert mine.get().nbytes == 7
        mine.close()
        assert signal.set_wakeup_fd(-1) == own

    def fork():
        wait_until_task_blocked("self", os.getpid())
        child = os.fork()
        if child == 0:
            try:
                in_child()
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        wait_until_task_blocked("self", os.getpid())
        port.post(None, 1 if status == 0 else 2)

    seen = []
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    thread = threading.Thread(target=fork)
    thread.start()
    assert port.get().nbytes == 1
    thread.join()
    assert not seen
    assert signal.set_wakeup_fd(-1) == own
    print("done")
"""


@pytest.mark.parametrize("own", ["own", "none"])
def test_p8_p10_a_forked_child_has_a_pipe_of_its_own(backend: str, own: str) -> None:
    """Its signals wake its own main thread, and never the parent's."""
    if run_script(HANDLERS_AFTER_FORK) != "ran\n":
        pytest.skip("this CPython (3.13.0 is one) runs no handlers where a thread has forked")
    assert run_script(FORKING, backend, own) == "done\n"


HANDLER_FORKS = """
    import os, signal, sys, warnings, portio
    warnings.simplefilter("ignore", DeprecationWarning)
    port = portio.Port(backend=sys.argv[1], thread_bound=sys.argv[2] == "thread_bound")
    children = []

    def handle(number, frame):
        children.append(os.fork())
        if children[0]:
            port.post(None, 5)

    signal.signal(signal.SIGUSR1, handle)
    print("waiting", flush=True)
    try:
        assert port.get().nbytes == 5
    except RuntimeError:        # P10, out of the parent's very wait
        os._exit(0 if children == [0] and signal.set_wakeup_fd(-1) == -1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert signal.set_wakeup_fd(-1) == -1
    print("done", flush=True)
"""


@kinds
def test_p8_p10_a_handler_may_fork(backend: str, kind: str) -> None:
    """The child's copy of the wait raises, and the parent's goes on."""
    with Child(HANDLER_FORKS, backend, kind) as child:
        child.expect("waiting")
        wait_until_task_blocked(child.pid, child.pid)
        child.signal(signal.SIGUSR1)
        child.expect("done")
        child.finish()
