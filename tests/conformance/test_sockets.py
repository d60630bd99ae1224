"""Accept, Connect, Recv, Send, Shutdown: each kind of socket operation by itself."""

from __future__ import annotations

import array
import gc
import os
import socket
from pathlib import Path
from typing import Any

import pytest

import portio
from support.drivers import Driver
from support.net import STREAMS, Net, number, recv_all, recv_exactly
from support.system import LOCAL, WINDOWS
from support.threads import Background
from support.watch import LIMIT

# Accept


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o1_accept_gives_a_socket(driver: Driver, net: Net, family: str) -> None:
    listener = net.listener(family)
    key = driver.associate(listener, "listener")
    driver.submit(accept := portio.Accept(key))
    driver.assert_quiet()
    peer = net.client(listener)
    done = driver.wait_for(accept)
    assert done.error is None
    assert done.key is key
    accepted = net.own(done.result())
    assert isinstance(accepted, socket.socket)
    assert accepted.family == listener.family
    assert accepted.type == socket.SOCK_STREAM
    assert accepted.proto == listener.proto
    assert accepted is accept.result()
    if family != "unix":
        assert accepted.getpeername() == peer.getsockname()
    assert accepted.getsockname() == listener.getsockname()


@pytest.mark.core
def test_o1_an_accepted_socket_is_an_ordinary_one(driver: Driver, net: Net) -> None:
    """Blocking, as socket.accept would give it, not inherited, and fit for a key."""
    listener = net.listener()
    listener.setblocking(False)  # the listener's own habit is not passed on
    driver.submit(accept := portio.Accept(driver.associate(listener)))
    peer = net.client(listener)
    accepted = net.own(driver.wait_for(accept).result())
    assert not accepted.get_inheritable()
    assert accepted.getblocking()
    assert WINDOWS or os.get_blocking(accepted.fileno())
    with Background(accepted.recv, 8) as receiver:
        peer.sendall(b"plain")
        assert receiver.result() == b"plain"
    assert driver.result(portio.Send(driver.associate(accepted), b"keyed")) == 5
    assert peer.recv(8) == b"keyed"


def test_o1_many_accepts_pending(driver: Driver, net: Net) -> None:
    listener = net.listener()
    key = driver.associate(listener)
    accepts = [portio.Accept(key) for _ in range(20)]
    driver.submit(*accepts)
    peers = [net.client(listener) for _ in range(20)]
    sockets = [net.own(done.result()) for done in driver.wait_for_all(accepts)]
    assert {s.getpeername() for s in sockets} == {p.getsockname() for p in peers}
    assert len({s.fileno() for s in sockets}) == 20


def test_o1_clients_that_came_before_the_accept(driver: Driver, net: Net) -> None:
    listener = net.listener()
    peers = [net.client(listener) for _ in range(5)]
    key = driver.associate(listener)
    for peer in peers:
        accepted = net.own(driver.result(portio.Accept(key)))
        assert accepted.getpeername() == peer.getsockname()


def test_o1_an_accepted_socket_that_nobody_wants(driver: Driver, net: Net) -> None:
    """Dropped with its completion, it is closed like any forgotten socket."""
    listener = net.listener()
    driver.submit(portio.Accept(driver.associate(listener)))
    peer = net.client(listener)
    [done] = driver.take()
    assert done.error is None
    with pytest.warns(ResourceWarning, match="socket"):
        del done
        driver.assert_quiet()
        gc.collect()
    assert peer.recv(1) == b""


def test_o1_a_client_that_is_gone_already(driver: Driver, net: Net) -> None:
    """The accept ends no accept loop: the next client is served."""
    listener = net.listener()
    key = driver.associate(listener)
    hasty = net.client(listener)
    hasty.close()
    done = driver.run(portio.Accept(key))
    if done.error is None:
        done.result().close()
    peer = net.client(listener)
    accepted = net.own(driver.result(portio.Accept(key)))
    accepted.sendall(b"ok")
    assert peer.recv(2) == b"ok"


# Connect


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o1_connect(driver: Driver, net: Net, family: str) -> None:
    listener = net.listener(family)
    ours = net.socket(family)
    key = driver.associate(ours, "connector")
    done = driver.run(portio.Connect(key, listener.getsockname()))
    assert done.error is None
    assert done.result() is None
    assert done.key is key
    listener.settimeout(LIMIT)
    peer, _ = listener.accept()
    net.own(peer).settimeout(LIMIT)
    assert ours.getpeername() == listener.getsockname()
    assert driver.result(portio.Send(key, b"hello")) == 5
    assert peer.recv(8) == b"hello"


@pytest.mark.core
@pytest.mark.parametrize("family", ["inet", "inet6"])
def test_o10_connect_refused(driver: Driver, net: Net, family: str) -> None:
    key = driver.associate(net.socket(family))
    done = driver.run(portio.Connect(key, net.refused_address(family)))
    assert type(done.error) is ConnectionRefusedError
    assert "Connect" in str(done.error)


def test_o10_connect_to_no_unix_socket(driver: Driver, net: Net) -> None:
    key = driver.associate(net.socket("unix"))
    done = driver.run(portio.Connect(key, net.free_address("unix")))
    assert type(done.error) is FileNotFoundError


def test_o1_connect_from_a_bound_socket(driver: Driver, net: Net) -> None:
    listener, ours = net.listener(), net.socket()
    ours.bind(("127.0.0.1", 0))
    name = ours.getsockname()
    driver.result(portio.Connect(driver.associate(ours), listener.getsockname()))
    listener.settimeout(LIMIT)
    peer, address = listener.accept()
    net.own(peer)
    assert address == name


def test_o1_connect_with_every_form_of_ipv6_address(driver: Driver, net: Net) -> None:
    listener = net.listener("inet6")
    port = listener.getsockname()[1]
    for address in (("::1", port), ("::1", port, 0), ("::1", port, 0, 0)):
        ours = net.socket("inet6")
        driver.result(portio.Connect(driver.associate(ours), address))
        assert ours.getpeername()[:2] == ("::1", port)


def test_o1_connect_to_an_abstract_unix_address(driver: Driver, net: Net) -> None:
    listener = net.socket("unix")
    name = b"\0portio-test-%d" % os.getpid()
    listener.bind(name)
    listener.listen()
    for address in (name, name.decode()):
        driver.result(portio.Connect(driver.associate(net.socket("unix")), address))
    listener.settimeout(LIMIT)
    for _ in range(2):
        net.own(listener.accept()[0])


def test_o1_connect_to_a_unix_path_of_bytes_or_a_path(driver: Driver, net: Net) -> None:
    listener = net.listener("unix")
    path: str = listener.getsockname()
    for address in (path, os.fsencode(path), Path(path)):
        driver.result(portio.Connect(driver.associate(net.socket("unix")), address))


def test_o1_many_connects_at_once(driver: Driver, net: Net) -> None:
    listener = net.listener()
    connects = [
        portio.Connect(driver.associate(net.socket()), listener.getsockname()) for _ in range(50)
    ]
    accept_key = driver.associate(listener)
    accepts = [portio.Accept(accept_key) for _ in range(50)]
    driver.submit(*accepts, *connects)
    everything: list[portio.Operation[Any]] = [*connects, *accepts]
    for done in driver.wait_for_all(everything):
        result = done.result()
        if result is not None:
            net.own(result)


def test_o1_a_datagram_socket_can_be_connected(driver: Driver, net: Net) -> None:
    ours, peer = net.datagram(), net.datagram()
    key = driver.associate(ours)
    driver.result(portio.Connect(key, peer.getsockname()))
    assert driver.result(portio.Send(key, b"to my peer")) == 10
    assert peer.recv(16) == b"to my peer"
    peer.sendto(b"answer", ours.getsockname())
    assert driver.result(portio.Recv(key, bytearray(16))) == 6


# Recv and Send


@pytest.mark.core
@pytest.mark.parametrize(
    "make",
    [
        bytearray,
        lambda data: array.array("B", data),
        lambda data: memoryview(bytearray(data)),
        lambda data: memoryview(bytearray(b"--" + data + b"--"))[2 : 2 + len(data)],
        lambda data: [bytearray(data[:3]), bytearray(data[3:])],
        lambda data: (bytearray(data[:3]), memoryview(bytearray(data[3:]))),
    ],
    ids=["bytearray", "array", "view", "slice", "list", "tuple"],
)
def test_o1_every_kind_of_buffer(driver: Driver, net: Net, make: Any) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    content = b"0123456789"
    assert driver.result(portio.Send(key, make(content))) == 10
    assert recv_exactly(peer, 10) == content
    buffer = make(bytes(10))
    peer.sendall(content)
    assert driver.result(portio.Recv(key, buffer)) == 10
    parts = buffer if isinstance(buffer, (list, tuple)) else [buffer]
    assert b"".join(bytes(part) for part in parts) == content


def test_o1_bytes_can_be_sent_and_short_ones_too(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    for data in (b"x", b"ab", bytes(range(256))):
        assert driver.result(portio.Send(key, data)) == len(data)
        assert recv_exactly(peer, len(data)) == data


def test_o1_nothing_is_written_behind_what_was_received(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    buffer = bytearray(b"\xaa" * 16)
    peer.sendall(b"1234")
    assert driver.result(portio.Recv(driver.associate(ours), buffer)) == 4
    assert buffer == b"1234" + b"\xaa" * 12


def test_o1_flags_peek(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    peer.sendall(b"look")
    for flags in (socket.MSG_PEEK, socket.MSG_PEEK, 0):
        buffer = bytearray(8)
        assert driver.result(portio.Recv(key, buffer, flags)) == 4
        assert buffer[:4] == b"look"
    receive = portio.Recv(key, bytearray(8), socket.MSG_PEEK)
    driver.submit(receive)  # a peek waits, too
    driver.assert_quiet()
    peer.sendall(b"!")
    assert driver.wait_for(receive).result() == 1


def test_o1_flags_out_of_band(driver: Driver, net: Net) -> None:
    ours, peer = net.pair()
    key = driver.associate(ours)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    assert driver.result(portio.Send(key, b"!", socket.MSG_OOB)) == 1
    assert peer.recv(4) == b"!"


def test_o1_flags_are_kept_as_fields(driver: Driver, net: Net) -> None:
    key = driver.associate(net.pair()[0])
    assert portio.Recv(key, bytearray(1)).flags == 0
    assert portio.Send(key, b"", socket.MSG_OOB).flags == socket.MSG_OOB
    assert portio.Connect(key, ("127.0.0.1", 9)).address == ("127.0.0.1", 9)


def test_o1_sequenced_packets_keep_their_bounds(driver: Driver, net: Net) -> None:
    if not hasattr(socket, "SOCK_SEQPACKET"):
        pytest.skip("this system has no SOCK_SEQPACKET")
    try:
        ours, peer = socket.socketpair(number("unix"), socket.SOCK_SEQPACKET)
    except OSError as error:
        pytest.skip(f"no sequenced-packet Unix sockets on this system: {error}")
    net.own(ours)
    net.own(peer).settimeout(LIMIT)
    key = driver.associate(ours)
    sends = [portio.Send(key, b"%03d" % n) for n in range(20)]
    driver.submit(*sends)
    driver.wait_for_all(sends)
    assert [peer.recv(64) for _ in range(20)] == [b"%03d" % n for n in range(20)]
    peer.send(b"one")
    peer.send(b"two!")
    assert driver.result(portio.Recv(key, bytearray(64))) == 3
    assert driver.result(portio.Recv(key, bytearray(64))) == 4
    peer.close()
    assert driver.result(portio.Recv(key, bytearray(64))) == 0


# Shutdown


@pytest.mark.core
@pytest.mark.parametrize("family", STREAMS)
def test_o1_shutdown_ends_our_direction_only(driver: Driver, net: Net, family: str) -> None:
    ours, peer = net.pair(family)
    key = driver.associate(ours)
    driver.submit(receive := portio.Recv(key, bytearray(8)))
    assert driver.result(portio.Shutdown(key)) is None
    assert recv_all(peer) == b""
    peer.sendall(b"answer")
    assert driver.wait_for(receive).result() == 6


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])
def test_o1_shutdown_each_way(driver: Driver, net: Net, how: int) -> None:
    ours, peer = net.pair(LOCAL)
    key = driver.associate(ours)
    assert portio.Shutdown(key, how).how == how
    assert driver.result(portio.Shutdown(key, how)) is None
    if how != socket.SHUT_WR:
        assert driver.result(portio.Recv(key, bytearray(1))) == 0
    if how != socket.SHUT_RD:
        assert isinstance(driver.run(portio.Send(key, b"x")).error, BrokenPipeError)
        assert peer.recv(1) == b""


def test_o1_shutdown_wakes_a_pending_receive(driver: Driver, net: Net) -> None:
    ours, _ = net.pair()
    key = driver.associate(ours)
    driver.submit(receive := portio.Recv(key, bytearray(1)))
    driver.result(portio.Shutdown(key, socket.SHUT_RDWR))
    assert driver.wait_for(receive).result() == 0


# All together


@pytest.mark.parametrize("family", STREAMS)
def test_o1_a_server_and_its_clients_on_one_port(driver: Driver, net: Net, family: str) -> None:
    """Accept, associate, receive, send, shut down, close: every step a completion."""
    number(family)
    listener = net.listener(family)
    accept_key = driver.associate(listener)
    for life in range(5):
        client_key = driver.associate(net.socket(family), life)
        driver.submit(
            accept := portio.Accept(accept_key),
            connect := portio.Connect(client_key, listener.getsockname()),
        )
        server_key = driver.associate(net.own(driver.wait_for(accept).result()))
        driver.wait_for(connect).result()
        driver.submit(portio.Send(client_key, b"request"), end := portio.Shutdown(client_key))
        driver.wait_for(end)
        assert driver.take()[0].result() == 7
        request = bytearray(16)
        assert driver.result(portio.Recv(server_key, request)) == 7
        assert driver.result(portio.Recv(server_key, bytearray(1))) == 0
        assert driver.result(portio.Send(server_key, request[:7])) == 7
        driver.close_key(server_key)
        response = bytearray(16)
        assert driver.result(portio.Recv(client_key, response)) == 7
        assert response[:7] == b"request"
        assert driver.result(portio.Recv(client_key, response)) == 0
        driver.close_key(client_key)
