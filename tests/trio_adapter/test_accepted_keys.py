"""Connections that come with their keys, awaited: none is lost with the task that waits for it."""

from __future__ import annotations

import pytest
import trio

import portio
from portio.trio import run
from support.net import Net
from support.system import LOCAL
from support.trio_runs import in_trio
from trio_adapter.conftest import MakePort
from trio_adapter.test_cancel import at_every_step, cancelled_at


@in_trio
async def test_awaited(trio_port: MakePort, net: Net) -> None:
    async with trio_port() as port:
        listener = net.listener()
        accept = portio.AcceptKey(port.associate(listener))
        for _ in range(3):
            peer = net.client(listener)
            key = await run(accept)
            assert key.port is port.port
            peer.sendall(b"hello")
            buffer = bytearray(8)
            assert await run(portio.Recv(key, buffer)) == 5
            assert await port.run(portio.Send(key, buffer[:5])) == 5
            assert peer.recv(8) == b"hello"
            port.close_key(key)
            assert peer.recv(1) == b""


@in_trio
async def test_cancelled(trio_port: MakePort, net: Net) -> None:
    """The accept has a connection, or the client waits for the next one."""

    async def scenario(step: int) -> trio.CancelScope:
        async with trio_port() as port:
            listener = net.listener(LOCAL)
            accept = portio.AcceptKey(port.associate(listener))
            keys = []

            async def connect() -> None:
                for _ in range(2):
                    await trio.lowlevel.checkpoint()
                    peers.append(net.client(listener))

            peers: list[object] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect)
                async with cancelled_at(step) as scope:
                    for _ in range(2):
                        keys.append(await port.run(accept))
            while len(keys) < 2:
                keys.append(await port.run(accept))
            assert len(set(keys)) == len(peers)
            assert not port.waiting
            for key in keys:
                key.close()
            for peer in peers:
                assert peer.recv(1) == b""  # type: ignore[attr-defined]
                peer.close()  # type: ignore[attr-defined]
            listener.close()
            return scope

    assert await at_every_step(scenario)


@in_trio
async def test_cancelled_when_it_has_succeeded(trio_port: MakePort, net: Net) -> None:
    """The key is returned, and the cancellation comes at the next checkpoint."""
    async with trio_port() as port:
        listener = net.listener()
        accept = portio.AcceptKey(port.associate(listener))
        with trio.CancelScope() as scope:

            class CancelLate(trio.abc.Instrument):
                def task_scheduled(self, task: trio.lowlevel.Task) -> None:
                    if task is here and not port.waiting:
                        scope.cancel()

            here = trio.lowlevel.current_task()
            peer = net.client(listener)
            instrument = CancelLate()
            trio.lowlevel.add_instrument(instrument)
            try:
                key = await port.run(accept)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        assert key.port is port.port
        key.close()
        assert peer.recv(1) == b""


@in_trio
async def test_the_port_closes_with_one_that_nobody_has_taken(
    trio_port: MakePort, net: Net
) -> None:
    async with trio_port() as port:
        listener = net.listener()
        accept = portio.AcceptKey(port.associate(listener), multishot=True)
        with pytest.raises(ValueError, match="multishot"):
            await port.run(accept)
        port.submit(accept)
        peers = [net.client(listener) for _ in range(3)]
        key = (await port.get()).result()
        await trio.lowlevel.checkpoint()  # the next one may arrive meanwhile, or not
        key.close()
    listener.close()
    for peer in peers:
        try:
            assert peer.recv(1) == b""
        except ConnectionResetError:
            pass
    assert not accept.pending
