"""O20 lent pieces: the program has the pool's own buffer, until it lets go of it."""

from __future__ import annotations

import gc
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import portio
from support.children import run_script
from support.drivers import Driver
from support.marks import needs_fork
from support.net import STREAMS, Net, pattern, reset
from support.taking import cancelled, take
from support.threads import Background, in_thread
from support.watch import wait_until_blocked

MakePort = Callable[..., portio.Port]
Piece = portio.Completion[memoryview]


class Lending:
    """A receive with a pool, and the peer of its stream."""

    def __init__(self, port: portio.Port, net: Net, buffers: int = 1, size: int = 4) -> None:
        self.port = port
        self.ours, self.peer = net.pair()
        self.pool = portio.BufferPool(port, buffers, size)
        self.receive = portio.RecvLent(port.associate(self.ours), self.pool)
        port.submit(self.receive)

    def piece(self, sent: bytes) -> memoryview:
        """Send something, and take it; nobody but the caller has it."""
        self.peer.sendall(sent)
        piece = take(self.port).result()
        assert piece == sent
        assert isinstance(piece, memoryview)
        return piece

    def assert_exhausted(self) -> None:
        """The next piece does not come, whatever arrives."""
        self.peer.sendall(b"next")
        for _ in range(3):
            assert self.port.get(0) is None

    def assert_it_comes(self) -> None:
        assert take(self.port).result() == b"next"

    def end(self) -> None:
        self.receive.cancel()
        assert cancelled(take(self.port))


@pytest.fixture
def lending(port: portio.Port, net: Net) -> Lending:
    """One buffer, of four bytes."""
    return Lending(port, net)


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o20_pieces_and_the_end(driver: Driver, net: Net, family: str) -> None:
    ours, peer = net.pair(family)
    receive = portio.RecvLent(driver.associate(ours, "data"), portio.BufferPool(driver.port, 2, 64))
    driver.submit(receive)
    for number in range(10):
        peer.sendall(b"piece %d" % number)
        done = driver.wait_for(receive)
        assert not done.last
        assert done.error is None
        assert receive.pending
        assert done.key is receive.key
        assert done.key.data == "data"
        with done.result() as piece:
            assert piece == b"piece %d" % number
            assert (done.nbytes, piece.nbytes) == (len(piece), len(piece))
            assert not piece.readonly
    driver.assert_quiet()
    peer.close()
    done = driver.wait_for(receive)
    assert done.last
    assert not receive.pending
    assert isinstance(done.result(), memoryview)
    assert (done.nbytes, done.result(), receive.result()) == (0, b"", b"")


@pytest.mark.core
def test_o20_each_has_a_buffer_of_its_own(driver: Driver, net: Net) -> None:
    """They neither overlap nor change, whatever is written to one of them."""
    receive = portio.RecvLent(
        driver.associate((pair := net.pair())[0]), portio.BufferPool(driver.port, 4, 8)
    )
    driver.submit(receive)
    kept = []
    for number in range(4):
        pair[1].sendall(b"%d" % number * 8)
        kept.append(driver.wait_for(receive).result())
    assert [bytes(piece) for piece in kept] == [b"%d" % number * 8 for number in range(4)]
    kept[1][:] = b"mine now"
    assert [bytes(piece[:1]) for piece in kept] == [b"0", b"m", b"2", b"3"]
    pair[1].sendall(b"more")
    driver.assert_quiet()
    del kept[2]
    assert driver.wait_for(receive).result() == b"more"
    assert bytes(kept[1]) == b"mine now"
    driver.cancel(receive)
    assert cancelled(driver.wait_for(receive))


def released(piece: memoryview) -> None:
    piece.release()


def within_a_block(piece: memoryview) -> None:
    with piece:
        pass


def dropped(piece: memoryview) -> None:
    del piece


@pytest.mark.core
@pytest.mark.parametrize("let_go", [released, within_a_block, dropped])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_o20_it_goes_back(
    lending: Lending, let_go: Callable[[memoryview], None], where: str
) -> None:
    for _ in range(5):
        held = [lending.piece(b"1234")]
        lending.assert_exhausted()
        if where == "here":
            let_go(held.pop())
        else:
            in_thread(lambda: let_go(held.pop()))
        lending.assert_it_comes()
    lending.end()


@pytest.mark.core
def test_o20_whoever_shares_it_has_it(lending: Lending) -> None:
    piece = lending.piece(b"1234")
    part, whole = piece[1:3], memoryview(piece)
    lending.assert_exhausted()
    piece.release()
    assert lending.port.get(0) is None
    whole.release()
    assert lending.port.get(0) is None
    assert part == b"23"
    del part
    lending.assert_it_comes()
    lending.end()


@pytest.mark.core
def test_o20_a_completion_has_it(lending: Lending) -> None:
    """Whether its result was asked for or not."""
    for _ in range(3):
        lending.peer.sendall(b"1234")
        done: Piece = take(lending.port)
        lending.assert_exhausted()
        del done
        lending.assert_it_comes()
    lending.end()


@pytest.mark.core
def test_o20_a_cycle_has_it(lending: Lending) -> None:
    class Node:
        """What the collector has to find."""

    node: Any = Node()
    node.piece, node.itself = lending.piece(b"1234"), node
    lending.assert_exhausted()
    del node
    gc.collect()
    lending.assert_it_comes()
    lending.end()


@pytest.mark.core
def test_o20_o3_an_operation_has_it(port: portio.Port, net: Net) -> None:
    """Nobody else refers to it while it is being sent."""
    lending = Lending(port, net)
    ours, peer = net.pair()
    key = port.associate(ours)
    full = portio.Send(key, bytes(8 << 20))  # more than fits
    port.submit(full)
    piece = lending.piece(b"1234")
    send = portio.Send(key, piece)
    port.submit(send)
    with pytest.raises(BufferError):
        piece.release()
    del piece
    send.buffer = b""
    lending.assert_exhausted()
    received = bytearray()

    def read() -> None:
        while len(received) < (8 << 20) + 4:
            received.extend(peer.recv(1 << 20))

    with Background(read):
        done = [take(port) for _ in range(3)]
    assert {each.operation for each in done} == {full, send, lending.receive}
    assert done[-1].result() == b"next"  # the buffer came back with the completion of the send
    assert received[-4:] == b"1234"
    del done
    lending.end()


@pytest.mark.core
def test_o20_a_stream_that_is_longer_than_the_pool(port: portio.Port, net: Net) -> None:
    ours, peer = net.pair()
    port.submit(portio.RecvLent(port.associate(ours), portio.BufferPool(port, 3, 1000)))
    sent, received = pattern(300_000), bytearray()

    def send() -> None:
        peer.sendall(sent)
        peer.shutdown(socket.SHUT_WR)

    with Background(send):
        while not (done := take(port)).last:
            received += done.result()
    assert received == sent


@pytest.mark.core
@pytest.mark.parametrize("buffers", [1, 3])
def test_o20_many_want_what_the_program_has(port: portio.Port, net: Net, buffers: int) -> None:
    """Nobody is passed over, and nothing is lost."""
    pool = portio.BufferPool(port, buffers, 8)
    pairs = [net.pair() for _ in range(20)]
    receives = [portio.RecvLent(port.associate(ours), pool) for ours, _ in pairs]
    for number, (_, peer) in enumerate(pairs):
        peer.sendall(b"%08d" % number * 3)
    port.submit(*receives)
    received = dict.fromkeys(map(id, receives), b"")
    held: list[tuple[int, memoryview]] = []
    for _ in range(3 * len(pairs)):
        done = take(port)
        held.append((id(done.operation), done.result()))
        del done
        if len(held) == buffers:
            for identity, piece in held:
                received[identity] += piece
            del held[:], piece
    for number, receive in enumerate(receives):
        assert received[id(receive)] == b"%08d" % number * 3
        receive.cancel()
        assert cancelled(take(port))


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o20_one_of_several_comes_back(port: portio.Port, net: Net, family: str) -> None:
    """A receive gets it, though the program keeps the other for good."""
    pool = portio.BufferPool(port, 2, 4)
    for _ in range(10):
        pairs = [net.pair(family) for _ in range(2)]
        receives = [portio.RecvLent(port.associate(ours), pool) for ours, _ in pairs]
        port.submit(*receives)
        kept = []
        for _, peer in pairs:
            peer.sendall(b"1234")
            kept.append(take(port).result())
        for _, peer in pairs:
            peer.sendall(b"more")
        kept.pop().release()
        done = take(port)
        assert done.result() == b"more"
        del done
        assert take(port).result() == b"more"
        for receive in receives:
            receive.cancel()
            assert cancelled(take(port))


@pytest.mark.core
def test_o20_a_finalizer_keeps_it(lending: Lending) -> None:
    """What is found to be garbage still has it, as long as a finalizer may want it."""
    saved: list[memoryview] = []

    class Node:
        """Garbage whose end is not the end of what it had."""

        piece: memoryview
        itself: Any

        def __del__(self) -> None:
            saved.append(self.piece)

    node = Node()
    node.piece, node.itself = lending.piece(b"1234"), node
    lending.assert_exhausted()
    del node
    gc.collect()
    assert lending.port.get(0) is None
    assert saved == [b"1234"]
    saved.clear()
    lending.assert_it_comes()
    lending.end()


@pytest.mark.core
def test_o20_o17_with_receives_that_copy(port: portio.Port, net: Net) -> None:
    """Both may use one pool."""
    pool = portio.BufferPool(port, 1, 4)
    (ours, peer), (other, other_peer) = net.pair(), net.pair()
    lent = portio.RecvLent(port.associate(ours), pool)
    copied = portio.RecvMultishot(port.associate(other), pool)
    port.submit(lent, copied)
    for _ in range(5):
        peer.sendall(b"lent")
        piece = take(port).result()
        other_peer.sendall(b"copy")
        for _ in range(3):
            assert port.get(0) is None
        piece.release()
        done = take(port)
        assert (done.operation, done.result()) == (copied, b"copy")
        assert isinstance(done.result(), bytes)
        del done
    for operation in (lent, copied):
        operation.cancel()
        assert cancelled(take(port))


@pytest.mark.core
def test_o20_p9_the_owner_sleeps(backend: str, net: Net) -> None:
    """Another thread than that of a thread-bound port gives it back, and the owner wakes up."""
    with portio.Port(backend=backend, thread_bound=True) as port:
        lending = Lending(port, net)
        for _ in range(5):
            held = [lending.piece(b"1234")]
            lending.assert_exhausted()

            def give_back(held: list[memoryview] = held) -> None:
                wait_until_blocked(threading.main_thread())
                held.pop()

            with Background(give_back):
                lending.assert_it_comes()
        lending.end()


@pytest.mark.core
@pytest.mark.parametrize("thread_bound", [False, True])
def test_o20_p7_closing_the_port(backend: str, net: Net, *, thread_bound: bool) -> None:
    """What the program has stays as it is, and may be let go in any thread."""
    port = portio.Port(backend=backend, thread_bound=thread_bound)
    lending = Lending(port, net, buffers=3)
    held = [lending.piece(b"%d" % number * 4) for number in range(3)]
    in_thread(held.pop)  # on its way back
    lending.peer.sendall(b"left" * 2)  # and others are taken, or not
    port.close()
    pool = weakref.ref(lending.pool)
    del lending, port
    gc.collect()
    assert [bytes(piece) for piece in held] == [b"0000", b"1111"]
    held[0][:] = b"mine"
    in_thread(held.pop)
    assert bytes(held.pop()) == b"mine"
    gc.collect()
    assert pool() is None


@pytest.mark.core
def test_o20_p9_a_pool_that_is_dropped_on_the_way(backend: str, net: Net) -> None:
    """Buffers are on their way back to the owner when nobody has the pool any more."""
    with portio.Port(backend=backend, thread_bound=True) as port:
        for round_ in range(5):
            lending = Lending(port, net, buffers=2)
            held = [lending.piece(b"1234"), lending.piece(b"5678")]
            lending.end()
            del lending
            in_thread(held.clear)  # the last to have it
            if round_ % 2:
                assert port.get(0) is None  # the owner looks
        assert port.get(0) is None


@pytest.mark.core
def test_o20_o10_a_reset_is_the_last(port: portio.Port, net: Net) -> None:
    lending = Lending(port, net)
    piece = lending.piece(b"1234")
    reset(lending.peer)
    piece.release()
    done = take(port)
    assert done.last
    assert isinstance(done.error, ConnectionResetError)
    assert done.nbytes == 0


@needs_fork
@pytest.mark.parametrize("thread_bound", [False, True])
def test_o20_p10_fork(backend: str, *, thread_bound: bool) -> None:
    """What a child has is a copy, and nothing goes back from there."""
    result = run_script(
        """
        import os, socket, sys
        import portio
        port = portio.Port(backend=sys.argv[1], thread_bound=sys.argv[2] == "True")
        ours, peer = socket.socketpair()
        pool = portio.BufferPool(port, 1, 4)
        receive = portio.RecvLent(port.associate(ours), pool)
        port.submit(receive)
        peer.sendall(b"12345678")
        piece = port.get(30).result()
        child = os.fork()
        if child == 0:
            try:
                assert piece == b"1234"
                piece.release()
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert port.get(0) is None and piece == b"1234"
        piece.release()
        assert port.get(30).result() == b"5678"
        port.close()
        print("fine")
        """,
        backend,
        str(thread_bound),
    )
    assert result == "fine\n"


@needs_fork
def test_o20_p10_the_end_of_a_piece_in_a_child_that_is_not_ready(backend: str) -> None:
    """Others hear of the fork before portio does, and drop what they have."""
    result = run_script(
        """
        import os, socket, sys
        held = []
        os.register_at_fork(after_in_child=held.clear)
        import portio
        with portio.Port(backend=sys.argv[1]) as port:
            ours, peer = socket.socketpair()
            port.submit(portio.RecvLent(port.associate(ours), portio.BufferPool(port, 1, 4)))
            peer.sendall(b"12345678")
            held.append(port.get(30).result())
            child = os.fork()
            if child == 0:
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert port.get(0) is None and held == [b"1234"]
            held.clear()
            assert port.get(30).result() == b"5678"
        print("fine")
        """,
        backend,
    )
    assert result == "fine\n"


@pytest.mark.parametrize("accelerator", ["0", "1"])
@pytest.mark.parametrize("end", ["open", "cancel", "close"])
def test_o20_p7_collected_together(backend: str, end: str, accelerator: str) -> None:
    """A port, its pool and its pieces are garbage, whoever of them comes first."""
    result = run_script(
        """
        import gc, socket, sys, warnings
        import portio
        warnings.simplefilter("ignore", ResourceWarning)
        gc.disable()

        class Program:
            def __init__(self, backend, end, first):
                holder = self if first else None
                self.itself = self
                port = portio.Port(backend=backend)
                pool = portio.BufferPool(port, 2, 4)
                holder = holder or type("Holder", (), {})()
                holder.itself = holder
                holder.port, holder.pool = port, pool
                ours, holder.peer = socket.socketpair()
                receive = portio.RecvLent(port.associate(ours), pool)
                port.submit(receive)
                holder.peer.sendall(b"1234")
                holder.piece = port.get(30).result()
                if end == "cancel":
                    receive.cancel()
                    port.get(30)
                if end == "close":
                    port.close()

        class Curious(Program):
            def __del__(self):
                if hasattr(self, "piece"):
                    assert self.piece == b"1234"
                    try:
                        self.port.get(0)
                    except portio.PortClosedError:
                        pass

        for kind in (Program, Curious):
            for first in (True, False):
                kind(sys.argv[1], sys.argv[2], first)
                gc.collect()
        print("fine")
        """,
        backend,
        end,
        PORTIO_ACCELERATOR=accelerator,
        MALLOC_PERTURB_="165",  # glibc: what is freed is overwritten
        PYTHONMALLOC="malloc",
    )
    assert result == "fine\n"


def test_o20_o2_misuse(port: portio.Port, make_port: MakePort, net: Net) -> None:
    key = port.associate(net.pair()[0])
    pool, foreign = portio.BufferPool(port, 1, 1), portio.BufferPool(make_port(), 1, 1)
    with pytest.raises(TypeError, match="pool must be a BufferPool"):
        port.submit(portio.RecvLent(key, bytearray(1)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="of another port"):
        port.submit(portio.RecvLent(key, foreign))
    with pytest.raises(ValueError, match="neither quiet nor queued=False"):
        port.submit(portio.RecvLent(key, pool), quiet=True)
    with pytest.raises(ValueError, match="neither quiet nor queued=False"):
        port.submit(portio.RecvLent(key, pool), queued=False)
    datagrams = port.associate(net.datagram())
    with pytest.raises(TypeError, match="a stream socket"):
        port.submit(portio.RecvLent(datagrams, pool))


class Derived(portio.RecvLent):
    """A class of the program's, with state of its own."""

    __slots__ = ("count",)


class Renamed(portio.RecvLent):
    """A class with an attribute that may mean something."""

    lends = False


class OwnWay(portio.RecvLent):
    """A class that C leaves to Python."""

    def _prepare(self, *arguments: Any) -> Any:
        return super()._prepare(*arguments)


@pytest.mark.core
@pytest.mark.parametrize("kind", [Derived, Renamed, OwnWay])
def test_o20_derived_classes(port: portio.Port, net: Net, kind: type[portio.RecvLent]) -> None:
    lending = Lending(port, net)
    lending.end()
    lending.receive = kind(lending.receive.key, lending.pool)
    port.submit(lending.receive)
    for _ in range(3):
        piece = lending.piece(b"1234")
        lending.assert_exhausted()
        piece.release()
        lending.assert_it_comes()
    lending.peer.shutdown(socket.SHUT_WR)
    done = take(port)
    assert done.last
    assert isinstance(done.result(), memoryview)
