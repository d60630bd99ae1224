"""K6 reuse: a descriptor number's former life is over.

These tests get the same number back on purpose: close, then open the next one.
POSIX hands out the lowest free number, and dup2 any; Windows is asked until it does.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

import portio
from support.drivers import Driver
from support.marks import needs_chosen_numbers
from support.net import Net
from support.system import LOCAL, WINDOWS, WINE


def pair_at(net: Net, fd: int) -> tuple[socket.socket, socket.socket]:
    """A connected pair of which our end has exactly this number."""
    if WINDOWS:
        return pair_that_gets(net, fd)
    ours, peer = socket.socketpair()
    if ours.fileno() != fd:
        os.dup2(ours.fileno(), fd)
        ours.close()
        ours = socket.socket(fileno=fd)
    peer.settimeout(30)
    return net.own(ours), net.own(peer)


def pair_that_gets(net: Net, number: int) -> tuple[socket.socket, socket.socket]:
    """pair_at for a system that chooses the numbers of handles by itself.

    When it keeps this one for something else, the test goes on with another, and
    proves a little less.
    """
    for _ in range(50):
        ours, peer = net.pair()
        if ours.fileno() == number:
            return ours, peer
    print(f"the number {number} did not come back")
    return ours, peer


@pytest.mark.core
def test_k6_the_number_comes_back_after_key_close(driver: Driver, net: Net) -> None:
    ours, peer = net.pair(LOCAL)
    number = ours.fileno()
    new_key: portio.CompletionKey | None = None
    for life in range(30):
        # Wine cannot take a handle from its port.
        old_key = new_key if WINE and new_key else driver.associate(ours, life)
        old = [portio.Recv(old_key, bytearray(8)) for _ in range(3)]
        driver.submit(*old)
        driver.close_key(old_key)
        ours, peer = pair_at(net, number)
        new_key = driver.associate(ours, life + 1)
        new = portio.Recv(new_key, bytearray(8))
        driver.submit(new)
        peer.sendall(b"new life")
        done = driver.wait_for(new)
        assert done.result() == 8
        assert done.key is new_key
        for former in driver.wait_for_all(old):
            assert isinstance(former.error, portio.OperationCancelledError)
            assert former.key is old_key
        assert all(operation.buffer == bytes(8) for operation in old)
        driver.let_go(new_key)


@pytest.mark.parametrize(
    "how", ["socket.close", "by its number", pytest.param("dup2", marks=needs_chosen_numbers)]
)
def test_k6_closed_behind_the_ports_back(driver: Driver, net: Net, how: str) -> None:
    """Then the old operations complete somehow, once, and never with the new data."""
    ours, peer = net.pair(LOCAL)
    number = ours.fileno()
    old_key = driver.associate(ours)
    old = portio.Recv(old_key, bytearray(8))
    driver.submit(old)
    if how == "socket.close":
        ours.close()
    elif how == "by its number":
        socket.close(ours.detach())
    else:
        ours.detach()  # pair_at puts the new one over the old one
    ours, new_peer = pair_at(net, number)
    new_key = driver.associate(ours)
    new = portio.Recv(new_key, bytearray(8))
    driver.submit(new)
    new_peer.sendall(b"new life")
    done = driver.wait_for(new)
    assert done.result() == 8
    assert done.key is new_key
    assert new.buffer == b"new life"
    former = driver.wait_for(old)
    assert former.key is old_key
    assert former.error is not None or former.nbytes == 0
    assert old.buffer == bytes(8)
    del peer


def test_k6_the_old_key_does_not_reach_the_new_handle(driver: Driver, net: Net) -> None:
    ours, _ = net.pair(LOCAL)
    number = ours.fileno()
    old_key = driver.associate(ours)
    driver.close_key(old_key)
    ours, peer = pair_at(net, number)
    new_key = driver.associate(ours)
    send = portio.Send(old_key, b"to the wrong one")
    with pytest.raises(ValueError, match="closed"):
        driver.submit(send)
    driver.close_key(old_key)  # closed already: it must not close its successor
    assert driver.result(portio.Send(new_key, b"right")) == 5
    assert peer.recv(32) == b"right"


def test_k6_the_old_key_of_a_silently_closed_handle(driver: Driver, net: Net) -> None:
    """The number is now of a handle that is not associated: it is not the key's to close."""
    ours, _ = net.pair(LOCAL)
    number = ours.fileno()
    old_key = driver.associate(ours)
    socket.close(ours.detach())
    bystander, peer = pair_at(net, number)
    driver.close_key(old_key)
    assert bystander.send(b"open") == 4
    assert peer.recv(16) == b"open"


@needs_chosen_numbers
def test_k6_from_one_kind_of_handle_to_another(driver: Driver, net: Net, tmp_path: Path) -> None:
    """A number that was a socket, then a pipe, then a file, then a socket again."""
    path = tmp_path / "file"
    path.write_bytes(b"contents of the file")
    number = os.dup(0)
    os.close(number)
    for life in range(12):
        sockets = socket.socketpair()
        pipes = os.pipe()
        fd = os.open(path, os.O_RDWR)
        source = [sockets[0].fileno(), pipes[0], fd][life % 3]
        os.dup2(source, 900)
        for other in (*pipes, fd):
            if other != pipes[1]:
                os.close(other)
        sockets[0].close() if life % 3 == 0 else None
        key = driver.associate(900, life)
        operation: portio.Operation[Any]
        if life % 3 == 0:
            sockets[1].sendall(b"socket")
            operation = portio.Recv(key, bytearray(32))
        elif life % 3 == 1:
            os.write(pipes[1], b"pipe")
            operation = portio.Read(key, bytearray(32))
        else:
            operation = portio.Read(key, bytearray(32), 9)
        assert driver.result(operation) == [6, 4, 11][life % 3]
        assert operation.key.data == life
        driver.close_key(key)
        os.close(pipes[1])
        for sock in sockets:
            sock.close()


def test_k6_accepted_numbers_come_and_go(driver: Driver, net: Net) -> None:
    """A server's everyday life: the number of the last client is the next client's."""
    listener = net.listener()
    accept_key = driver.associate(listener)
    numbers = set()
    for life in range(50):
        driver.submit(accept := portio.Accept(accept_key))
        peer = net.client(listener)
        client = driver.wait_for(accept).result()
        numbers.add(client.fileno())
        key = driver.associate(client, life)
        receives = [portio.Recv(key, bytearray(4)), portio.Recv(key, bytearray(4))]
        driver.submit(*receives)
        peer.sendall(b"%04d" % life)
        assert driver.wait_for(receives[0]).result() == 4
        assert receives[0].buffer == b"%04d" % life
        driver.close_key(key)
        assert isinstance(driver.wait_for(receives[1]).error, portio.OperationCancelledError)
        peer.close()
    assert len(numbers) < 50, "the test is meant to see numbers again"
