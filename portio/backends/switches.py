"""The debugging switches of the engines: PORTIO_IO_URING and PORTIO_IOCP.

A list of words with commas between them, read whenever a port is created:

- ``no-NAME`` makes the engine work as on a system without the feature NAME
  (``python -m portio info`` lists the names);
- ``sq=N`` and ``cq=N`` set the sizes of io_uring's submission and completion queue.

With it the paths for older kernels and for full queues are tested on a new one.
It changes no result that a program can see, only how the engine gets there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["VARIABLE", "VARIABLES", "Switches", "parse"]

VARIABLE = "PORTIO_IO_URING"
#: The switch of each engine that has one.
VARIABLES = {"io_uring": VARIABLE, "iocp": "PORTIO_IOCP"}
_LARGEST_RING = 1 << 15  # io_uring_setup(2): IORING_MAX_ENTRIES


class Switches(NamedTuple):
    """What the switch says; zeros leave the choice to the engine."""

    disabled_features: int = 0
    submission_entries: int = 0
    completion_entries: int = 0


def parse(text: str, features: Sequence[str], variable: str = VARIABLE) -> Switches:
    """What `text` says; `features` are the names that the engine knows, bit 0 first.

    Raises ValueError for a word that means nothing.
    """
    disabled = 0
    sizes = {"sq": 0, "cq": 0} if variable == VARIABLE else {}
    for word in text.replace(",", " ").split():
        name, _, value = word.partition("=")
        if name in sizes and value:
            sizes[name] = _size(word, value)
        elif word.startswith("no-") and word[3:] in features:
            disabled |= 1 << features.index(word[3:])
        else:
            words = [f"{size}=N" for size in sizes] + [f"no-{feature}" for feature in features]
            raise ValueError(f"{variable}: unknown word {word!r}; known are: {', '.join(words)}")
    return Switches(disabled, sizes.get("sq", 0), sizes.get("cq", 0))


def _size(word: str, value: str) -> int:
    limit = _LARGEST_RING * 2  # the completion queue may be twice as large
    if not (value.isascii() and value.isdigit()) or not 1 <= int(value) <= limit:
        raise ValueError(f"{VARIABLE}: {word!r} needs a number from 1 to {limit}")
    return int(value)
