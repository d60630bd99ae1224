"""Which backends this run must prove.

By default every backend of this system, where an unavailable one is skipped
with its reason.  ``PORTIO_TEST_BACKENDS="io_uring,epoll"`` names the backends
to run instead, and then an unavailable one is a failure.
"""

from __future__ import annotations

import os
import sys

import pytest

from portio import backends

OF_SYSTEM = {"linux": ("io_uring", "epoll"), "win32": ("iocp",)}


def mandatory() -> tuple[str, ...]:
    """The backends that the environment insists on."""
    names = os.environ.get("PORTIO_TEST_BACKENDS", "").replace(",", " ").split()
    if unknown := set(names).difference(*OF_SYSTEM.values()):
        raise pytest.UsageError(f"PORTIO_TEST_BACKENDS: no such backend: {', '.join(unknown)}")
    return tuple(names)


def selected() -> tuple[str, ...]:
    """The backends to parametrise tests over."""
    return mandatory() or OF_SYSTEM.get(sys.platform, ())


def require(name: str) -> None:
    """Skip, or fail where it is mandatory, a test whose backend is unavailable."""
    status = backends.available().get(name)
    if status is not None and status.available:
        return
    reason = f"backend {name} is unavailable: {status.reason if status else 'unknown to portio'}"
    if name in mandatory():
        pytest.fail(f"{reason} (PORTIO_TEST_BACKENDS asks for it)", pytrace=False)
    pytest.skip(reason)
