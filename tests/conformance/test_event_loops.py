"""P11 event loops: the descriptor of a port in somebody else's loop."""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import threading
import time
from typing import Any

import pytest

import portio
from support.net import Net
from support.system import LOCAL, WINDOWS
from support.threads import Background
from support.watch import LIMIT, wait_until_blocked

pytestmark = pytest.mark.skipif(
    WINDOWS, reason="a port's handle cannot be polled there: see test_windows.py"
)


def readable(port: portio.Port, seconds: float = 0) -> bool:
    poll = select.poll()
    poll.register(port.fileno(), select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@pytest.mark.core
def test_p11_readable_when_a_packet_was_posted(port: portio.Port) -> None:
    port.fileno()
    assert port.get(0) is None  # whoever begins to watch has looked once
    assert not readable(port)
    port.post(None, 1)
    assert readable(port, LIMIT)
    assert port.get(0) is not None


@pytest.mark.core
def test_p11_readable_when_an_operation_completes(port: portio.Port, net: Net) -> None:
    ours, peer = net.pair()
    receive = portio.Recv(port.associate(ours), bytearray(4))
    port.submit(receive)
    done = port.get(0)
    with Background(peer.sendall, b"x"):
        while done is None:
            assert readable(port, LIMIT)
            done = port.get(0)
    assert done.operation is receive


@pytest.mark.parametrize("kind", ["pipe", "timer", "accept", "file", "datagram"])
def test_p11_readable_for_every_source(
    port: portio.Port, net: Net, kind: str, tmp_path: Any
) -> None:
    """Completions that the owner of a ring must fetch itself count too."""
    operation: portio.Operation[Any]
    reader, writer = portio.pipe()
    with reader, writer, portio.open(tmp_path / "file", "w+") as file:
        if kind == "pipe":
            operation = portio.Read(port.associate(reader), bytearray(4))
            port.submit(operation)
            os.write(writer.fileno(), b"x")
        elif kind == "timer":
            operation = portio.Timer(0.02)
            port.submit(operation)
        elif kind == "accept":
            listener = net.listener()
            operation = portio.Accept(port.associate(listener))
            port.submit(operation)
            net.client(listener)
        elif kind == "file":
            operation = portio.Write(port.associate(file), b"data")
            port.submit(operation)
        else:
            ours, peer = net.datagram(), net.datagram()
            operation = portio.RecvFrom(port.associate(ours), bytearray(4))
            port.submit(operation)
            peer.sendto(b"x", ours.getsockname())
        done = None
        while done is None:  # a wake-up for nothing is no harm, a missing one is
            assert readable(port, LIMIT)
            done = port.get(0)
        assert done.operation is operation
        if kind == "accept":
            net.own(done.result())


def test_p11_stays_readable_until_the_last_packet_is_taken(port: portio.Port) -> None:
    for _ in range(5):
        port.post()
    for _ in range(5):
        assert readable(port, LIMIT)
        assert port.get(0) is not None
    assert port.get(0) is None


def test_p11_goes_quiet_when_the_queue_is_empty(port: portio.Port, net: Net) -> None:
    """A loop that is woken for nothing, again and again, spins."""
    ours, peer = net.pair()
    key = port.associate(ours)
    for _ in range(3):
        port.submit(portio.Recv(key, bytearray(4)))
        peer.sendall(b"x")
        assert readable(port, LIMIT)
        while port.get(0) is None:
            assert readable(port, LIMIT)
        # One empty look may be needed to find that nothing is left.
        assert port.get(0) is None
        assert not readable(port)
        port.post()
        assert port.get_many(10, LIMIT)
        assert port.get(0) is None
        assert not readable(port)


def test_p11_an_epoll_set_can_watch_it_edge_triggered(port: portio.Port) -> None:
    """Drain to None after each edge, and no packet is ever missed."""
    with select.epoll() as poll:
        poll.register(port.fileno(), select.EPOLLIN | select.EPOLLET)
        for number in range(100):
            port.post(None, number)
            seen = []
            while not seen:
                assert poll.poll(LIMIT)
                while (packet := port.get(0)) is not None:
                    seen.append(packet.nbytes)
            assert seen == [number]


def test_p11_the_descriptor_is_not_inherited(port: portio.Port) -> None:
    assert not os.get_inheritable(port.fileno())
    assert port.fileno() == port.fileno()


def drain_in_loop(port: portio.Port, count: int) -> list[portio.Completion[Any]]:
    """What a foreign event loop does: sleep on the descriptor, then drain."""
    packets: list[portio.Completion[Any]] = []
    with selectors.DefaultSelector() as selector:
        selector.register(port.fileno(), selectors.EVENT_READ)
        while len(packets) < count:
            assert selector.select(LIMIT), f"missed wake-up: {len(packets)} of {count} packets"
            while batch := port.get_many(64, 0):
                packets += batch
    return packets


@pytest.mark.core
def test_p11_no_wake_up_is_missed_with_posts_from_other_threads(port: portio.Port) -> None:
    def post(sender: int) -> None:
        for number in range(2500):
            port.post(None, number, sender)

    senders = [Background(post, sender) for sender in range(4)]
    packets = drain_in_loop(port, 10_000)
    for sender in senders:
        sender.result()
    for number in range(4):
        assert [p.nbytes for p in packets if p.payload == number] == list(range(2500))
    assert port.get(0) is None


def test_p11_no_wake_up_is_missed_one_packet_at_a_time(port: portio.Port) -> None:
    """Each post is made only when the loop sleeps again: a lost edge stops it for good."""
    loop = threading.current_thread()
    taken = threading.Semaphore(0)

    def post() -> None:
        for number in range(2000):
            if number % 200 == 0:
                wait_until_blocked(loop)
            port.post(None, number)
            assert taken.acquire(timeout=LIMIT)

    with Background(post), selectors.DefaultSelector() as selector:
        selector.register(port.fileno(), selectors.EVENT_READ)
        for number in range(2000):
            while True:
                assert selector.select(LIMIT), f"missed wake-up at packet {number}"
                packet = port.get(0)
                if packet is not None:
                    break
            assert packet.nbytes == number
            taken.release()


def test_p11_no_wake_up_is_missed_with_completions(port: portio.Port, net: Net) -> None:
    """Echoes over several streams and a pipe of posts, all through one descriptor."""
    rounds, streams = 300, 8
    pairs = [net.pair(LOCAL) for _ in range(streams)]
    receives = [portio.Recv(port.associate(ours), bytearray(8)) for ours, _ in pairs]
    port.submit(*receives)

    def peer(sock: Any) -> None:
        for number in range(rounds):
            sock.sendall(b"%07d\n" % number)
            assert sock.recv(8) == b"%07d\n" % number

    peers = [Background(peer, sock) for _, sock in pairs]
    echoed = 0
    with selectors.DefaultSelector() as selector:
        selector.register(port.fileno(), selectors.EVENT_READ)
        while echoed < rounds * streams:
            assert selector.select(LIMIT), f"missed wake-up: {echoed} echoes"
            while (done := port.get(0)) is not None:
                match done.operation:
                    case portio.Recv() as receive:
                        assert done.result() == 8
                        assert done.key is not None
                        port.submit(portio.Send(done.key, bytes(receive.buffer)))
                        echoed += 1
                        port.submit(receive)
                    case portio.Send():
                        assert done.result() == 8
    for thread in peers:
        thread.result()


def test_p11_waiters_in_get_and_a_loop_together(shared_port: portio.Port) -> None:
    """Threads that wait in get do not blind the descriptor, nor it them."""
    taken: list[int] = []

    def serve() -> None:
        for packet in shared_port:
            taken.append(packet.nbytes)

    with Background(serve) as server, selectors.DefaultSelector() as selector:
        selector.register(shared_port.fileno(), selectors.EVENT_READ)
        for number in range(2000):
            shared_port.post(None, number)
            if number % 3 == 0 and (packet := shared_port.get(0)) is not None:
                taken.append(packet.nbytes)
        deadline = time.monotonic() + LIMIT
        while len(taken) < 2000 and time.monotonic() < deadline:
            selector.select(0.01)
            while (packet := shared_port.get(0)) is not None:
                taken.append(packet.nbytes)
        shared_port.close()
        server.result()
    assert sorted(taken) == list(range(2000))


def test_p11_in_asyncio(port: portio.Port, net: Net) -> None:
    ours, peer = net.pair()
    key = port.associate(ours)

    async def main() -> list[portio.Completion[Any]]:
        loop = asyncio.get_running_loop()
        packets: list[portio.Completion[Any]] = []
        done = loop.create_future()

        def drain() -> None:
            while batch := port.get_many(16, 0):
                packets.extend(batch)
            if len(packets) >= 101 and not done.done():
                done.set_result(None)

        loop.add_reader(port.fileno(), drain)
        try:
            port.submit(portio.Recv(key, bytearray(4)))
            await asyncio.to_thread(lambda: [port.post(None, n) for n in range(100)])
            await asyncio.to_thread(peer.sendall, b"last")
            await asyncio.wait_for(done, LIMIT)
        finally:
            loop.remove_reader(port.fileno())
        return packets

    packets = asyncio.run(main())
    assert [p.nbytes for p in packets if p.operation is None] == list(range(100))
