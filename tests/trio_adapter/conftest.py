"""Fixtures for the trio adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from portio.trio import TrioPort
from portio.trio.wakes import VARIABLE
from support.system import WINDOWS

MakePort = Callable[[], AbstractAsyncContextManager[TrioPort]]


@pytest.fixture(params=["thread"] if WINDOWS else ["descriptor", "thread"])
def wake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way in which completions reach a run, in turn."""
    name: str = request.param
    monkeypatch.setenv(VARIABLE, name)
    return name


@pytest.fixture
def trio_port(backend: str, wake: str, no_leak: None) -> MakePort:
    """Makes a port in the run: ``async with trio_port() as port``."""
    del wake, no_leak

    @asynccontextmanager
    async def make() -> AsyncIterator[TrioPort]:
        async with TrioPort(backend=backend) as port:
            yield port

    return make
