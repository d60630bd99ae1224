"""The books of a port (engine.py), and the form of the Python layer that keeps them."""

from __future__ import annotations

from typing import NoReturn

import portio
from portio import engine


def assert_balanced(port: portio.Port) -> None:
    """Every slot but the engine's is idle, with one token each."""
    assert port._pending == {}
    slots = [token & (engine.GENERATION - 1) for token in port._free]
    assert sorted(slots) == list(range(1, port._slots))


def refuse(*_: object, **__: object) -> NoReturn:
    """Stands for a method of the rule where the accelerator has to do without it."""
    raise AssertionError("this is no case for the rule")
