"""Many operations pending under asyncio or uvloop, and the memory that they take."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Coroutine
from typing import Any

from benchmarks.measuring import limit_seconds, print_sample, resident_bytes, socket_pairs
from benchmarks.peers import loops


async def _pending(coroutines: list[Coroutine[Any, Any, Any]], before: int, handles: int) -> None:
    """Let each coroutine run as far as its first wait, print, and cancel them."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    after = resident_bytes()
    print_sample(count=len(tasks), operation=after - before, handle=handles)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def sock(count: int) -> None:
    """Wait for data on each of many sockets."""
    loop = asyncio.get_running_loop()
    pairs = socket_pairs(count)
    buffers = [bytearray(64) for _ in pairs]
    before = resident_bytes()
    await _pending(
        [loop.sock_recv_into(pair[0], buffer) for pair, buffer in zip(pairs, buffers, strict=True)],
        before,
        0,
    )


async def protocol(count: int) -> None:
    """Keep many connections: that each of them reads is part of what it is."""
    loop = asyncio.get_running_loop()
    pairs = socket_pairs(count)
    before = resident_bytes()
    kept = [await loop.connect_accepted_socket(asyncio.Protocol, pair[0]) for pair in pairs]
    await asyncio.sleep(0)
    print_sample(count=len(kept), operation=resident_bytes() - before, handle=0)
    for transport, _ in kept:
        transport.abort()


async def sleep(count: int) -> None:
    """Sleep in many tasks."""
    before = resident_bytes()
    await _pending([asyncio.sleep(3600) for _ in range(count)], before, 0)


STYLES = {"sock": sock, "protocol": protocol, "sleep": sleep}


def main() -> None:
    """Parse the command line, and run the style."""
    parser = argparse.ArgumentParser()
    loops.add_argument(parser)
    parser.add_argument("--style", choices=STYLES, required=True)
    parser.add_argument("case", choices=["receives", "timers"])
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=int)
    options = parser.parse_args()
    limit_seconds(options.seconds)
    with asyncio.Runner(loop_factory=loops.factory(options.loop)) as runner:
        runner.run(STYLES[options.style](options.count))


if __name__ == "__main__":
    main()
