"""O17 on io_uring: pools whose free buffers are in a ring that the kernel takes them from.

What a program sees is in test_pools.py, which is run again with the feature switched off.
Here the kernel is asked what it was given to do.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

import portio
from portio import backends
from portio.backends import switches
from support.children import run_script
from support.marks import needs_fork
from support.net import STREAMS, Net
from support.taking import take

BEFORE = 4
PIECES = 50


@pytest.fixture(autouse=True)
def _only_io_uring(backend: str) -> None:
    if backend != "io_uring":
        pytest.skip(f"{backend} has no rings of buffers")


def is_known(feature: str = "buffer_rings") -> bool:
    """Whether the kernel has it, and the engine was not told to do without."""
    switched_off = f"no-{feature}" in os.environ.get(switches.VARIABLE, "")
    return feature in backends.available()["io_uring"].features and not switched_off


def only_where_known() -> None:
    if not is_known():
        pytest.skip("the kernel has no rings of buffers, or they are switched off")


def rings() -> list[Path]:
    """The rings of this process."""
    links = Path("/proc/self/fd").iterdir()
    return [
        Path("/proc/self/fdinfo", link.name)
        for link in links
        if link.is_symlink() and "io_uring" in os.readlink(link)
    ]


def submissions() -> int:
    """How many the only ring has been given."""
    (ring,) = rings()
    fields = dict(line.split(":", 1) for line in ring.read_text().splitlines() if ":" in line)
    return int(fields["SqTail"])


def mappings() -> int:
    """How many mappings look like a ring of buffers: shared, and of no file."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum("/dev/zero" in line for line in lines)


def take_received(port: portio.Port) -> portio.Completion[bytes]:
    """The next one that was not posted."""
    while (done := take(port)).operation is None:
        pass
    return done


def cancel(port: portio.Port, *receives: portio.RecvMultishot) -> None:
    for receive in receives:
        receive.cancel()
    for _ in receives:
        assert isinstance(take(port).error, portio.OperationCancelledError)


@pytest.mark.core
@pytest.mark.parametrize(
    ("buffers", "known"),
    [(1, True), (3, True), (32768, True), (32769, False)],  # so many, or a poll does it
)
@pytest.mark.parametrize("family", STREAMS)
def test_o17_submissions_for_each_piece(
    port: portio.Port, net: Net, buffers: int, known: bool, family: str
) -> None:
    """Of Unix sockets the kernel loses the end of the stream: there is one for each piece."""
    ours, peer = net.pair(family)
    receive = portio.RecvMultishot(port.associate(ours), portio.BufferPool(port, buffers, 16))
    port.submit(receive)
    for number in range(BEFORE + PIECES):
        if number == BEFORE:
            before = submissions()
        peer.sendall(b"%d" % number)
        assert take(port).result() == b"%d" % number
    each = 2
    if known and is_known():
        each = 0 if is_known("multishot_receive") and family != "unix" else 1
    expected = PIECES * each
    assert expected <= submissions() - before <= expected + 2  # the port's own polls
    cancel(port, receive)


@pytest.mark.core
@pytest.mark.parametrize("together", [True, False])
def test_o17_idle_receives_are_left_alone_when_all_is_lent(
    port: portio.Port, net: Net, together: bool
) -> None:
    """The kernel says of each at once that there is no buffer.  That is no reason to ask again."""
    pool = portio.BufferPool(port, 1, 8)
    pairs = [net.pair() for _ in range(20)]
    first, *idle = (portio.RecvMultishot(port.associate(ours), pool) for ours, _ in pairs)
    for _ in range(300):
        port.post()  # packets that leave the port before the one that has the buffer
    pairs[0][1].sendall(b"first")
    if together:
        port.submit(first, *idle)
    else:
        port.submit(first)
        port.post()  # looks at the system, and finds the buffer lent
        port.submit(*idle)
    before = submissions()
    for _ in range(100):
        assert take(port).operation is None  # every 32nd looks at the system again
    assert submissions() - before <= len(idle) + 2  # once more each, and the port's own polls
    before = submissions()
    for _ in range(200):
        assert take(port).operation is None
    assert submissions() == before
    assert take_received(port).operation is first
    for (_, peer), receive in zip(pairs[1:], idle, strict=True):
        peer.sendall(b"later")
        done = take_received(port)
        assert (done.operation, done.result()) == (receive, b"later")
    cancel(port, first, *idle)


@pytest.mark.core
def test_o17_exhaustion_costs_a_bounded_number_of_submissions(port: portio.Port, net: Net) -> None:
    """All have data for one buffer: for each piece it is asked a few times at most."""
    pool = portio.BufferPool(port, 1, 4)
    pairs = [net.pair() for _ in range(10)]
    receives = [portio.RecvMultishot(port.associate(ours), pool) for ours, _ in pairs]
    for _, peer in pairs:
        peer.sendall(b"1234" * 20)
    port.submit(*receives)
    pieces = dict.fromkeys(receives, 0)
    for _ in range(200):
        done = take(port)
        assert isinstance(done.operation, portio.RecvMultishot)
        assert done.result() == b"1234"
        pieces[done.operation] += 1
        # In the order in which they found none: nobody is ahead by much.
        assert max(pieces.values()) - min(pieces.values()) <= 2
    assert submissions() <= 200 * 3 + 10
    cancel(port, *receives)


@pytest.mark.core
def test_o17_rings_of_pools_that_are_gone(port: portio.Port, net: Net) -> None:
    """They are unmapped, and their numbers are used again."""
    only_where_known()
    ours, peer = net.pair()
    key = port.associate(ours)
    empty = mappings()
    kept: list[portio.BufferPool] = []
    for number in range(100):
        pool = portio.BufferPool(port, 2, 8)
        receive = portio.RecvMultishot(key, pool)
        port.submit(receive)
        peer.sendall(b"x")
        assert take(port).result() == b"x"
        cancel(port, receive)
        if number % 10 == 0:
            kept.append(pool)
        del pool, receive
    gc.collect()
    assert len(kept) < mappings() - empty + 1 <= len(kept) + 3
    port.close()
    assert mappings() == empty
    kept.clear()


@needs_fork
@pytest.mark.parametrize("bound", ["shared", "thread_bound"])
@pytest.mark.parametrize("closed", ["open", "closed"])
def test_o17_p10_a_child_drops_the_pool(bound: str, closed: str) -> None:
    """It unmaps nothing of its own, and takes nothing from the parent."""
    run_script(
        """
        import gc, mmap, os, socket, sys, warnings
        import portio
        warnings.simplefilter("ignore", DeprecationWarning)
        port = portio.Port(backend="io_uring", thread_bound=sys.argv[1] == "thread_bound")
        ours, peer = socket.socketpair()
        key = port.associate(ours)
        pool = portio.BufferPool(port, 256, 8)
        receive = portio.RecvMultishot(key, pool)
        port.submit(receive)
        peer.sendall(b"before")
        assert port.get(30).result() == b"before"
        receive.cancel()
        assert port.get(30).last
        if sys.argv[2] == "closed":
            port.close()
        child = os.fork()
        if child == 0:
            memory = [mmap.mmap(-1, mmap.PAGESIZE) for _ in range(64)]
            del receive, pool
            gc.collect()
            for page in memory:
                page[0] = 1
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        if sys.argv[2] == "open":
            port.submit(receive)
            for number in range(300):
                peer.sendall(b"%d" % number)
                assert port.get(30).result() == b"%d" % number
        """,
        bound,
        closed,
    )
