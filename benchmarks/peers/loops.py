"""asyncio's own event loop, or uvloop, by name."""

from __future__ import annotations

import argparse
import asyncio
import importlib
from collections.abc import Callable

LOOPS = ["asyncio", "uvloop"]


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Let the user choose the loop."""
    parser.add_argument("--loop", choices=LOOPS, required=True)


def factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Give what makes a loop of that name."""
    if name == "asyncio":
        return asyncio.new_event_loop
    make: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(name).new_event_loop
    return make
