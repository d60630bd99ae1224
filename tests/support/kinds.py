"""One operation of every kind, each of which can complete at once, and its result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import portio
from support.drivers import Driver
from support.net import Net

Expected = list[tuple[portio.Operation[Any], object]]


@contextmanager
def every_kind(driver: Driver, net: Net, folder: Path) -> Iterator[tuple[Expected, portio.Accept]]:
    """Operations and their results, to be carried out in this order; and last an Accept.

    The result of that is a socket, which is the caller's.
    """
    listener = net.listener()
    ours, peer = net.pair()
    datagram, other = net.datagram(), net.datagram()
    key = driver.associate(ours)
    peer.sendall(b"12345")
    other.sendto(b"dgram", datagram.getsockname())
    net.client(listener)
    with portio.open(folder / "file", "w+") as file:
        file_key = driver.associate(file)
        datagram_key = driver.associate(datagram)
        yield (
            [
                (portio.Recv(key, bytearray(8)), 5),
                (portio.Send(key, b"out"), 3),
                (portio.Send(key, [b"o", b"ut"]), 3),
                (portio.Send(key, b""), 0),
                (portio.RecvFrom(datagram_key, bytearray(8)), (5, other.getsockname())),
                (portio.SendTo(datagram_key, b"x", other.getsockname()), 1),
                (portio.Write(file_key, b"contents"), 8),
                (portio.Read(file_key, bytearray(8)), 8),
                (portio.Sync(file_key), None),
                (portio.SendFile(key, file, 0, 4), 4),
                (portio.Shutdown(key), None),
                (portio.Timer(0.01), None),
                (portio.Connect(driver.associate(net.socket()), listener.getsockname()), None),
            ],
            portio.Accept(driver.associate(listener)),
        )
