"""Taking packets from a port with one's own hands."""

from __future__ import annotations

from typing import Any

import portio
from support.watch import LIMIT


def take(port: portio.Port) -> portio.Completion[Any]:
    """The next packet; it has to come."""
    done = port.get(LIMIT)
    assert done is not None
    return done


def cancelled(done: portio.Completion[Any]) -> bool:
    """Whether the operation was cancelled, and no other error stands for that."""
    return type(done.error) is portio.OperationCancelledError
