"""O12 datagrams, and RecvFrom and SendTo by themselves."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

import portio
from support.drivers import Driver
from support.marks import wine_tells_only_who_waits
from support.net import Net, pattern
from support.system import LOCAL
from support.threads import Background

FAMILIES = ("inet", "inet6", "unix")


@pytest.mark.core
@pytest.mark.parametrize("family", FAMILIES)
def test_o12_there_and_back(driver: Driver, net: Net, family: str) -> None:
    ours, peer = net.datagram(family), net.datagram(family)
    key = driver.associate(ours, "datagrams")
    assert driver.result(portio.SendTo(key, b"question", peer.getsockname())) == 8
    data, address = peer.recvfrom(64)
    assert (data, address) == (b"question", ours.getsockname())
    receive = portio.RecvFrom(key, bytearray(64))
    driver.submit(receive)
    driver.assert_quiet()
    peer.sendto(b"answer", ours.getsockname())
    done = driver.wait_for(receive)
    assert done.nbytes == 6
    assert done.key is key
    assert done.result() == (6, peer.getsockname())
    assert receive.result() == (6, peer.getsockname())
    assert receive.buffer[:6] == b"answer"


def test_o12_a_sender_without_a_name(driver: Driver, net: Net) -> None:
    """An unbound Unix socket has no address; that is no error."""
    ours = net.datagram("unix")
    nameless = net.socket("unix", socket.SOCK_DGRAM)
    nameless.sendto(b"who", ours.getsockname())
    count, address = driver.result(portio.RecvFrom(driver.associate(ours), bytearray(8)))
    assert count == 3
    assert address in (None, "", b"")


def test_o12_abstract_unix_addresses(driver: Driver, net: Net) -> None:
    ours = net.datagram("unix")
    peer = net.socket("unix", socket.SOCK_DGRAM)
    peer.bind(b"\0portio-datagram-%d" % os.getpid())
    key = driver.associate(ours)
    assert driver.result(portio.SendTo(key, b"x", peer.getsockname())) == 1
    assert peer.recv(4) == b"x"
    peer.sendto(b"y", ours.getsockname())
    assert driver.result(portio.RecvFrom(key, bytearray(4))) == (1, peer.getsockname())


@pytest.mark.core
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [portio.RecvFrom, portio.Recv])
def test_o12_an_oversized_datagram_is_one_clear_error(
    driver: Driver, net: Net, family: str, kind: Any
) -> None:
    ours, peer = net.datagram(family), net.datagram(family)
    key = driver.associate(ours)
    receive = kind(key, bytearray(4))
    driver.submit(receive)
    peer.sendto(b"too long", ours.getsockname())
    peer.sendto(b"fits", ours.getsockname())
    done = driver.wait_for(receive)
    assert isinstance(done.error, OSError)
    assert done.error.errno == errno.EMSGSIZE
    assert done.nbytes == 4
    assert receive.buffer == b"too "
    assert driver.run(kind(key, bytearray(4))).nbytes == 4  # exactly its size: no error
    driver.assert_quiet()


def test_o12_an_oversized_datagram_among_pending_receives(driver: Driver, net: Net) -> None:
    """It ends one receive; the others go on.  (Which gets which is not promised.)"""
    ours, peer = net.datagram(), net.datagram()
    key = driver.associate(ours)
    receives = [portio.RecvFrom(key, bytearray(4)) for _ in range(3)]
    driver.submit(*receives)
    for data in (b"1", b"far too long", b"333"):
        peer.sendto(data, ours.getsockname())
    outcomes = [
        (done.nbytes, done.error.errno if done.error else done.result()[1])
        for done in driver.wait_for_all(receives)
    ]
    expected = [(1, peer.getsockname()), (4, errno.EMSGSIZE), (3, peer.getsockname())]
    assert sorted(outcomes, key=repr) == sorted(expected, key=repr)


def test_o12_oversized_for_a_sequence_of_buffers(driver: Driver, net: Net) -> None:
    ours, peer = net.datagram(), net.datagram()
    key = driver.associate(ours)
    buffers = [bytearray(2), bytearray(2)]
    peer.sendto(b"abcdef", ours.getsockname())
    done = driver.run(portio.RecvFrom(key, buffers))
    assert done.error is not None
    assert done.error.errno == errno.EMSGSIZE
    assert (done.nbytes, buffers) == (4, [b"ab", b"cd"])
    peer.sendto(b"wxyz", ours.getsockname())
    assert driver.result(portio.RecvFrom(key, buffers)) == (4, peer.getsockname())
    assert buffers == [b"wx", b"yz"]


@wine_tells_only_who_waits
@pytest.mark.core
@pytest.mark.parametrize("family", ["inet", "inet6"])
def test_o12_port_unreachable_is_one_completion(driver: Driver, net: Net, family: str) -> None:
    """The ICMP error of an earlier send comes with a receive, and the next one works."""
    ours, peer = net.datagram(family), net.datagram(family)
    address = peer.getsockname()
    key = driver.associate(ours)
    driver.result(portio.Connect(key, address))
    peer.close()
    assert driver.result(portio.Send(key, b"nobody home")) == 11
    done = driver.run(portio.Recv(key, bytearray(16)))
    assert isinstance(done.error, ConnectionRefusedError)
    assert "Recv" in str(done.error)
    peer = net.socket(family, socket.SOCK_DGRAM)
    peer.bind(address)
    peer.sendto(b"back again", ours.getsockname())
    assert driver.result(portio.Recv(key, bytearray(16))) == 10


@wine_tells_only_who_waits
def test_o12_port_unreachable_while_a_receive_is_pending(driver: Driver, net: Net) -> None:
    ours, peer = net.datagram(), net.datagram()
    address = peer.getsockname()
    key = driver.associate(ours)
    driver.result(portio.Connect(key, address))
    receives = [portio.RecvFrom(key, bytearray(16)) for _ in range(2)]
    driver.submit(*receives)
    peer.close()
    driver.submit(send := portio.Send(key, b"nobody home"))
    first, second = driver.take(2)  # the send, and one of the receives
    failed = first if second.operation is send else second
    assert failed.operation in receives
    assert isinstance(failed.error, ConnectionRefusedError)
    assert send.result() == 11
    peer = net.socket("inet", socket.SOCK_DGRAM)
    peer.bind(address)
    peer.sendto(b"hello", ours.getsockname())
    [done] = driver.take()
    assert {id(failed.operation), id(done.operation)} == set(map(id, receives))
    assert done.result() == (5, address)


def test_o12_an_unconnected_socket_hears_of_no_foreign_errors(driver: Driver, net: Net) -> None:
    """The loop of a server that answers a client that has gone."""
    ours, gone, alive = net.datagram(), net.datagram(), net.datagram()
    key = driver.associate(ours)
    address = gone.getsockname()
    gone.close()
    driver.submit(receive := portio.RecvFrom(key, bytearray(16)))
    assert driver.result(portio.SendTo(key, b"too late", address)) == 8
    alive.sendto(b"next client", ours.getsockname())
    done = driver.wait_for(receive)
    if done.error is not None:  # one completion with a clear error, then it works
        assert isinstance(done.error, ConnectionError)
        done = driver.run(portio.RecvFrom(key, bytearray(16)))
    assert done.result() == (11, alive.getsockname())


@pytest.mark.core
@pytest.mark.parametrize("family", FAMILIES)
def test_o12_an_empty_datagram_is_a_datagram(driver: Driver, net: Net, family: str) -> None:
    ours, peer = net.datagram(family), net.datagram(family)
    key = driver.associate(ours)
    assert driver.result(portio.SendTo(key, b"", peer.getsockname())) == 0
    assert peer.recvfrom(8) == (b"", ours.getsockname())
    driver.submit(receive := portio.RecvFrom(key, bytearray(8)))
    peer.sendto(b"", ours.getsockname())
    assert driver.wait_for(receive).result() == (0, peer.getsockname())
    peer.sendto(b"x", ours.getsockname())
    assert driver.result(portio.RecvFrom(key, bytearray(8))) == (1, peer.getsockname())


def test_o12_an_empty_datagram_into_no_buffer(driver: Driver, net: Net) -> None:
    ours, peer = net.datagram(), net.datagram()
    key = driver.associate(ours)
    peer.sendto(b"", ours.getsockname())
    assert driver.result(portio.RecvFrom(key, bytearray())) == (0, peer.getsockname())
    peer.sendto(b"x", ours.getsockname())
    done = driver.run(portio.RecvFrom(key, bytearray()))
    assert done.error is not None
    assert done.error.errno == errno.EMSGSIZE
    driver.assert_quiet()


@pytest.mark.core
def test_o12_scatter_and_gather_in_one_datagram(driver: Driver, net: Net) -> None:
    ours, peer = net.datagram(), net.datagram()
    key = driver.associate(ours)
    send = portio.SendTo(key, [b"one", b"", bytearray(b"two")], peer.getsockname())
    assert driver.result(send) == 6
    assert peer.recv(16) == b"onetwo"
    peer.sendto(b"abcdefg", ours.getsockname())
    buffers = [bytearray(3), bytearray(3), bytearray(3)]
    assert driver.result(portio.RecvFrom(key, buffers)) == (7, peer.getsockname())
    assert buffers == [b"abc", b"def", b"g\0\0"]


def test_o12_each_datagram_is_one_receive(driver: Driver, net: Net) -> None:
    """However many receives are pending; none is torn, joined, lost or doubled."""
    ours, peer = net.datagram(LOCAL), net.datagram(LOCAL)
    key = driver.associate(ours)
    receives = [portio.RecvFrom(key, bytearray(512)) for _ in range(100)]
    driver.submit(*receives)
    messages = [b"%03d" % number * (1 + number) for number in range(100)]
    with Background(lambda: [peer.sendto(data, ours.getsockname()) for data in messages]):
        dones = driver.wait_for_all(receives)
    assert {done.result()[1] for done in dones} == {peer.getsockname()}
    received = [
        bytes(receive.buffer[: done.nbytes]) for receive, done in zip(receives, dones, strict=True)
    ]
    assert sorted(received) == sorted(messages)


def test_o12_one_receive_at_a_time_is_in_order(driver: Driver, net: Net) -> None:
    ours, peer = net.datagram(LOCAL), net.datagram(LOCAL)
    key = driver.associate(ours)
    with Background(
        lambda: [peer.sendto(b"%03d" % number, ours.getsockname()) for number in range(100)]
    ):
        for number in range(100):
            receive = portio.RecvFrom(key, bytearray(8))
            assert driver.result(receive) == (3, peer.getsockname())
            assert receive.buffer[:3] == b"%03d" % number


@pytest.mark.parametrize("connected", [False, True])
def test_o14_datagrams_that_find_no_room(driver: Driver, net: Net, connected: bool) -> None:
    """The queue of a Unix datagram socket is short.  A send waits for room, or says that
    there was none; it neither pretends nor sends something else."""
    ours = net.datagram("unix")
    peers = [net.datagram("unix") for _ in range(1 if connected else 3)]
    key = driver.associate(ours)
    messages = [b"%03d" % number for number in range(99)]
    sends: list[portio.Operation[int]]
    if connected:
        driver.result(portio.Connect(key, peers[0].getsockname()))
        sends = [portio.Send(key, message) for message in messages]
    else:
        sends = [
            portio.SendTo(key, message, peers[number % 3].getsockname())
            for number, message in enumerate(messages)
        ]
    received: list[bytes] = []

    def read(peer: socket.socket) -> None:
        while (message := peer.recv(64)) != b"stop":
            received.append(message)

    driver.submit(*sends)
    readers = [Background(read, peer) for peer in peers]
    sent = []
    for message, done in zip(messages, driver.wait_for_all(sends), strict=True):
        if done.error is None:
            assert done.result() == 3
            sent.append(message)
        else:
            assert done.error.errno in (errno.EAGAIN, errno.ENOBUFS)
            assert done.nbytes == 0
    stop = net.socket("unix", socket.SOCK_DGRAM)
    for peer, reader in zip(peers, readers, strict=True):
        stop.settimeout(30)
        stop.sendto(b"stop", peer.getsockname())
        reader.result()
    assert sorted(received) == sent
    assert not connected or len(sent) == 99  # here the system can tell when there is room


def test_o12_a_datagram_too_large_to_send(driver: Driver, net: Net) -> None:
    ours, peer = net.datagram(), net.datagram()
    key = driver.associate(ours)
    done = driver.run(portio.SendTo(key, bytes(70_000), peer.getsockname()))
    assert done.error is not None
    assert done.error.errno == errno.EMSGSIZE
    assert done.nbytes == 0
    assert driver.result(portio.SendTo(key, b"smaller", peer.getsockname())) == 7
    assert peer.recv(16) == b"smaller"


def test_o12_the_largest_datagram(driver: Driver, net: Net) -> None:
    ours, peer = net.datagram(), net.datagram()
    data = pattern(65_507)
    key = driver.associate(ours)
    assert driver.result(portio.SendTo(key, data, peer.getsockname())) == 65_507
    assert peer.recv(70_000) == data
    peer.sendto(data, ours.getsockname())
    buffer = bytearray(65_507)
    assert driver.result(portio.RecvFrom(key, buffer)) == (65_507, peer.getsockname())
    assert buffer == data


def test_o12_sendto_an_address_of_the_wrong_family(driver: Driver, net: Net) -> None:
    key = driver.associate(net.datagram("inet"))
    send = portio.SendTo(key, b"x", ("::1", 9, 0, 0))
    try:
        driver.submit(send)
    except (ValueError, TypeError):
        assert not send.pending
    else:
        assert driver.wait_for(send).error is not None


def test_o12_flags_peek_and_trunc(driver: Driver, net: Net) -> None:
    ours, peer = net.datagram(), net.datagram()
    key = driver.associate(ours)
    peer.sendto(b"look", ours.getsockname())
    for flags in (socket.MSG_PEEK, 0):
        receive = portio.RecvFrom(key, bytearray(8), flags)
        assert driver.result(receive) == (4, peer.getsockname())
        assert receive.buffer[:4] == b"look"


def test_o12_recvfrom_on_a_stream(driver: Driver, net: Net) -> None:
    """As recvfrom(2) does: the bytes, with or without an address."""
    ours, peer = net.pair()
    peer.sendall(b"stream")
    count, address = driver.result(portio.RecvFrom(driver.associate(ours), bytearray(16)))
    assert count == 6
    assert address in (None, peer.getsockname(), "", ("", 0), ("0.0.0.0", 0))


def test_o12_broadcast_without_permission(driver: Driver, net: Net) -> None:
    key = driver.associate(net.datagram())
    done = driver.run(portio.SendTo(key, b"x", ("255.255.255.255", 9)))
    assert isinstance(done.error, OSError)
    assert "SendTo" in str(done.error)
