"""O14 pressure: full queues, exhausted descriptors, and no spinning."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

import portio
from support import handles
from support.children import run_script
from support.drivers import Driver
from support.marks import kernel_sees_who_blocks, needs_resource_limits
from support.net import Net, fill, recv_exactly
from support.system import LOCAL, WINDOWS, WINE
from support.threads import Background
from support.watch import LIMIT, processor_seconds

MakePort = Callable[..., portio.Port]

#: Operations: more than any queue has room for.  Windows has no such queues, and each packet
#: costs Wine a message or two.
MANY = 4_000 if WINE else 20_000


@pytest.mark.core
def test_o14_more_operations_than_any_submission_queue_holds(driver: Driver, net: Net) -> None:
    ours, peer = net.pair(LOCAL)
    key = driver.associate(ours)
    receives = [portio.Recv(key, bytearray(1)) for _ in range(MANY)]
    driver.submit(*receives)
    with Background(peer.sendall, bytes(MANY)):
        for done in driver.wait_for_all(receives):
            assert done.result() == 1


@pytest.mark.core
def test_o14_more_completions_than_any_completion_queue_holds(driver: Driver, net: Net) -> None:
    """All of them ready before one is taken."""
    pairs = [net.pair(LOCAL) for _ in range(50)]
    receives = []
    for ours, _ in pairs:
        key = driver.associate(ours)
        receives += [portio.Recv(key, bytearray(1)) for _ in range(MANY // 50)]
    driver.submit(*receives)
    for _, peer in pairs:
        peer.sendall(bytes(MANY // 50))
    for done in driver.wait_for_all(receives):
        assert done.result() == 1


def test_o14_a_flood_of_immediate_completions(driver: Driver, tmp_path: Any) -> None:
    with portio.open(tmp_path / "file", "w+") as file:
        key = driver.associate(file)
        driver.result(portio.Write(key, bytes(4096)))
        reads = [portio.Read(key, bytearray(8), number % 4000) for number in range(10_000)]
        for start in range(0, len(reads), 100):
            driver.submit(*reads[start : start + 100])
        for done in driver.wait_for_all(reads):
            assert done.result() == 8


def test_o14_cancels_are_never_dropped(driver: Driver, net: Net) -> None:
    """More cancels at once than the submission queue has room for."""
    pairs = [net.pair(LOCAL) for _ in range(20)]
    receives = []
    for ours, _ in pairs:
        key = driver.associate(ours)
        receives += [portio.Recv(key, bytearray(1)) for _ in range(200)]
    driver.submit(*receives)
    for receive in receives:
        driver.cancel(receive)
    for done in driver.wait_for_all(receives):
        assert isinstance(done.error, portio.OperationCancelledError)


def test_o14_many_handles_pending_at_close(make_port: MakePort, net: Net) -> None:
    for thread_bound in (False, True):
        port = make_port(thread_bound=thread_bound)
        receives = []
        for _ in range(300):
            ours, _peer = net.pair(LOCAL)
            receives.append(portio.Recv(port.associate(ours), bytearray(1)))
        port.submit(*receives)
        port.close()
        assert not any(receive.pending for receive in receives)


SMALL_RINGS = """
    import socket, sys, portio
    bound = sys.argv[1] == "thread_bound"
    with portio.Port(backend="io_uring", thread_bound=bound) as port:
        pairs = [socket.socketpair() for _ in range(30)]
        receives = []
        for ours, _ in pairs:
            key = port.associate(ours)
            receives += [portio.Recv(key, bytearray(1)) for _ in range(40)]
        port.submit(*receives)
        for _, peer in pairs:
            peer.sendall(bytes(40))
        timers = [portio.Timer(0) for _ in range(1000)]
        port.submit(*timers)
        posted = 500
        for number in range(posted):
            port.post(None, number)
        packets = []
        while len(packets) < len(receives) + len(timers) + posted:
            more = port.get_many(64, 30)
            assert more, f"lost: only {len(packets)} packets"
            packets += more
        assert port.get(0) is None
        assert len({id(p.operation) for p in packets if p.operation}) == 2200
        assert [p.nbytes for p in packets if p.operation is None] == list(range(posted))
        assert all(p.error is None for p in packets)
        again = [portio.Recv(receive.key, bytearray(1)) for receive in receives]
        port.submit(*again)
        for receive in again:
            receive.cancel()
        packets = []
        while len(packets) < len(again):
            more = port.get_many(64, 30)
            assert more, f"lost: only {len(packets)} cancelled"
            packets += more
        assert all(isinstance(p.error, portio.OperationCancelledError) for p in packets)
    print("well")
"""


@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
@pytest.mark.parametrize("sizes", ["sq=1,cq=2", "sq=4,cq=8"])
@pytest.mark.skipif(WINDOWS, reason="only a ring has queues of a fixed size")
def test_o14_rings_of_a_few_entries(backend: str, kind: str, sizes: str) -> None:
    if backend != "io_uring":
        pytest.skip("only a ring has queues of a fixed size")
    assert run_script(SMALL_RINGS, kind, PORTIO_IO_URING=sizes) == "well\n"


EXHAUSTED_ACCEPT = """
    import errno, os, resource, socket, sys, time, portio
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    backend, bound = sys.argv[1], sys.argv[2] == "thread_bound"
    port = portio.Port(backend=backend, thread_bound=bound)
    listener = socket.create_server(("127.0.0.1", 0))
    key = port.associate(listener)
    def run(operation):
        port.submit(operation)
        done = port.get(30)
        assert done is not None and done.operation is operation, done
        return done
    for blocked_first in (False, True):
        client = socket.create_connection(listener.getsockname())
        accept = portio.Accept(key)
        if blocked_first:       # it waits for the client when the limit is reached
            run(portio.Accept(key)).result().close()
            port.submit(accept)
            late = socket.socket()
        hoard = []
        try:
            while True:
                hoard.append(os.dup(0))
        except OSError as error:
            assert error.errno == errno.EMFILE
        if blocked_first:
            late.connect(listener.getsockname())
            done = port.get(30)
        else:
            done = run(accept)
        assert done.error is not None and done.error.errno == errno.EMFILE, done
        # Nothing spins while the limit lasts.
        before = time.process_time()
        assert port.get(0.2) is None
        assert time.process_time() - before < 0.1
        for fd in hoard:
            os.close(fd)
        accepted = run(portio.Accept(key)).result()     # the client has waited
        peer = late if blocked_first else client
        accepted.sendall(b"welcome")
        assert peer.recv(16) == b"welcome"
        accepted.close()
        client.close()
    late.close()
    listener.close()
    port.close()
    print("well")
"""


@needs_resource_limits
@pytest.mark.core
@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_o14_exhausted_descriptors_fail_an_accept_and_lose_no_client(
    backend: str, kind: str
) -> None:
    assert run_script(EXHAUSTED_ACCEPT, backend, kind) == "well\n"


EXHAUSTED_CREATE = """
    import errno, os, resource, sys, portio
    backend, bound = sys.argv[1], sys.argv[2] == "thread_bound"
    portio.Port(backend=backend, thread_bound=bound).close()    # everything is loaded
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    hoard = []
    try:
        while True:
            hoard.append(os.dup(0))
    except OSError:
        pass
    for _ in range(6):              # with no descriptor left, with one, with two …
        try:
            port = portio.Port(backend=backend, thread_bound=bound)
        except OSError as error:
            assert error.errno == errno.EMFILE, error
        else:
            try:
                port.submit(portio.Timer(0))
                assert port.get(30).error is None
            finally:
                port.close()
        os.close(hoard.pop())
    with portio.Port(backend=backend, thread_bound=bound) as port:
        port.post(None, 1)
        assert port.get(30).nbytes == 1
    try:
        portio.pipe()
    except OSError as error:
        assert error.errno == errno.EMFILE
    print("well")
"""


@needs_resource_limits
@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_o14_exhausted_descriptors_fail_a_new_port(backend: str, kind: str) -> None:
    """And what it had opened by then is closed again."""
    assert run_script(EXHAUSTED_CREATE, backend, kind) == "well\n"


FILE_TABLE = """
    import errno, os, resource, socket, sys, portio
    backend, bound = sys.argv[1], sys.argv[2] == "thread_bound"
    with portio.Port(backend=backend, thread_bound=bound) as port:
        pairs = [socket.socketpair() for _ in range(20)]
        keys = [port.associate(ours) for ours, _ in pairs]
        hoard = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150))
        try:
            while True:
                hoard.append(os.dup(0))
        except OSError as error:
            assert error.errno == errno.EMFILE
        # What is associated already works on without a single free descriptor.
        for (_, peer), key in zip(pairs, keys):
            receive = portio.Recv(key, bytearray(4))
            port.submit(receive)
            peer.sendall(b"data")
            assert port.get(30).result() == 4
            port.submit(portio.Send(key, b"back"), portio.Timer(0.001))
            assert {port.get(30).error, port.get(30).error} == {None}
            assert peer.recv(4) == b"back"
            port.post(None, 3)
            assert port.get(30).nbytes == 3
    print("well")
"""


@needs_resource_limits
@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_o14_what_runs_works_on_without_descriptors(backend: str, kind: str) -> None:
    assert run_script(FILE_TABLE, backend, kind) == "well\n"


ADDRESS_SPACE = """
    import resource, sys, portio
    backend, bound = sys.argv[1], sys.argv[2] == "thread_bound"
    with portio.Port(backend=backend, thread_bound=bound) as port:
        key = portio.CompletionKey()
        reserve = bytearray(4 << 20)  # for what comes after the error, which may need some
        pages = int(open("/proc/self/statm").read().split()[0])
        limit = pages * resource.getpagesize() + (24 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        posted = 0
        try:
            try:
                while posted < 3_000_000:
                    counted = True
                    port.post(key, posted)
                    counted = False
                    posted += 1  # needs memory as well
            finally:
                del reserve  # an except clause needs memory already, for its tuple
        except (MemoryError, OSError):
            if not counted:
                posted += 1
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert 0 < posted < 3_000_000, posted
        for number in range(posted):
            packet = port.get(0)
            assert packet is not None, f"lost: {posted - number} of {posted}"
            assert packet.nbytes == number, (packet.nbytes, number)
        assert port.get(0) is None      # the post that raised left nothing behind
        port.submit(portio.Timer(0))
        assert port.get(30).error is None
    print("well")
"""


@needs_resource_limits
@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
def test_o14_p6_exhausted_memory_raises_and_loses_nothing(backend: str, kind: str) -> None:
    assert run_script(ADDRESS_SPACE, backend, kind) == "well\n"


# Nothing spins


@pytest.mark.core
@pytest.mark.parametrize("state", ["idle", "data that nobody asked for", "a full peer", "end"])
def test_o14_waiting_costs_no_processor_time(port: portio.Port, net: Net, state: str) -> None:
    """Readiness that nobody acts on must not wake the engine over and over."""
    ours, peer = net.small_pair()
    key = port.associate(ours)
    port.submit(portio.Timer(1000))
    if state == "data that nobody asked for":
        port.submit(portio.Recv(key, bytearray(1)))
        peer.sendall(b"xy" * 1000)
        assert port.get(LIMIT) is not None
    elif state == "a full peer":
        fill(ours)
        port.submit(portio.Send(key, bytes(100_000)))
    elif state == "end":
        port.submit(portio.Recv(key, bytearray(1)))
        peer.close()
        done = port.get(LIMIT)
        assert done is not None
        assert done.nbytes == 0
        assert port.get(0) is None
    assert processor_seconds(lambda: port.get(0.4)) < 0.2


def test_o14_waiters_cost_no_processor_time(make_port: MakePort, net: Net) -> None:
    """Several threads in get, and one that waits for an operation."""
    port = make_port(2)
    ours, peer = net.pair()
    key = port.associate(ours)
    port.submit(portio.Recv(key, bytearray(1)))
    peer.sendall(b"more than one")
    timer = portio.Timer(1000)
    port.submit(timer, queued=False)
    threads = [Background(port.get) for _ in range(4)] + [Background(timer.wait)]
    quiet = threading.Event()
    assert processor_seconds(lambda: quiet.wait(0.4)) < 0.2
    port.close()
    for thread in threads:
        try:
            thread.result()
        except portio.PortClosedError:
            pass


@kernel_sees_who_blocks
def test_o14_at_the_cap_nobody_spins(make_port: MakePort) -> None:
    """Packets are queued, threads wait, and the place is taken: all must sleep."""
    port = make_port(1)
    for _ in range(3):
        port.post()
    assert port.get(0) is not None
    threads = [Background(port.get) for _ in range(3)]
    quiet = threading.Event()
    assert processor_seconds(lambda: quiet.wait(0.4)) < 0.2
    port.close()
    for thread in threads:
        with pytest.raises(portio.PortClosedError):
            thread.result()


@pytest.mark.skipif(WINDOWS, reason="a port has no descriptor there")
def test_o14_a_loop_without_readers_of_the_descriptor(port: portio.Port, net: Net) -> None:
    """A port whose fileno was asked for and never looked at works on."""
    ours, peer = net.pair()
    key = port.associate(ours)
    assert port.fileno() >= 0
    for number in range(3000):
        port.post(None, number)
        packet = port.get(LIMIT)
        assert packet is not None
        assert packet.nbytes == number
    for _ in range(300):
        port.submit(portio.Recv(key, bytearray(1)))
        peer.sendall(b"x")
        done = port.get(LIMIT)
        assert done is not None
        assert done.nbytes == 1


def test_o14_thousands_of_connections_come_and_go(driver: Driver, net: Net) -> None:
    """More lives than there ever are handles at once."""
    limit = 500
    listener = net.listener(LOCAL)
    accept_key = driver.associate(listener)
    for _ in range(0, 1500, 50):
        accepts = [portio.Accept(accept_key) for _ in range(50)]
        driver.submit(*accepts)
        peers = []
        for _ in range(50):
            peer = socket.socket(listener.family)
            peer.settimeout(LIMIT)
            peer.connect(listener.getsockname())
            peers.append(peer)
        keys = [driver.associate(done.result()) for done in driver.wait_for_all(accepts)]
        sends = [portio.Send(key, b"hello") for key in keys]
        receives = [portio.Recv(key, bytearray(1)) for key in keys]
        driver.submit(*sends, *receives)
        driver.take(50)
        for key in keys:
            driver.close_key(key)
        driver.take(50)
        for peer in peers:
            assert recv_exactly(peer, 6) == b"hello"
            peer.close()
    assert len(handles.open_handles()) < limit
