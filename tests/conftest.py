"""Fixtures and options for every test of the project."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import portio
from support import backends
from support.drivers import DRIVERS as PORT_DRIVERS
from support.drivers import Driver
from support.handles import open_handles
from support.net import Net
from support.system import WINDOWS, WINE
from support.trio_driver import TrioRun
from support.watch import HANG_LIMIT, LIMIT

DRIVERS: dict[str, type[Driver]] = {**PORT_DRIVERS, TrioRun.name: TrioRun}

_ERROR_OUTPUT = pytest.StashKey[int]()
_WINE = "Wine cannot: "

# What cannot even be imported on Windows, or would have nothing to test, and why.
_NOT_ON_WINDOWS = {
    "native": "the stress test in C is of the Linux engines",
    "benchmarks": "the peers of the benchmarks are written for Linux",
    "conformance/test_features.py": "the features that are switched off are io_uring's",
    "conformance/test_buffer_rings.py": "the rings of buffers are io_uring's",
    "environment/test_blocked.py": "seccomp is Linux's",
}
collect_ignore = list(_NOT_ON_WINDOWS) if WINDOWS else []


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ERROR_OUTPUT] = os.dup(2)  # what a capturing pytest does not hide
    for marker in (
        "core: the selection that is run again with features of a backend switched off",
        "large: moves gigabytes; needs a few seconds and up to 3 GiB of memory",
        "wine_limitation(what): Wine cannot do this; runs on Windows itself",
    ):
        config.addinivalue_line("markers", marker)
    # Who starts the tests in the background may have had it ignored, also for children.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_ERROR_OUTPUT])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if WINE:
        # All of the contract through a run takes four minutes there.
        left_out = [item for item in items if _through_a_run(item) and not _is_core(item)]
        items[:] = [item for item in items if not _through_a_run(item) or _is_core(item)]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(240))
        limitation = item.get_closest_marker("wine_limitation")
        if WINE and limitation is not None:
            item.add_marker(pytest.mark.skip(reason=f"{_WINE}{limitation.args[0]}"))


def _through_a_run(item: pytest.Item) -> bool:
    """Whether it proves a clause through the driver `trio`."""
    return (
        isinstance(item, pytest.Function)
        and "driver_name" in item.fixturenames
        and (item.callspec.params.get("driver_name") == TrioRun.name)
    )


def _is_core(item: pytest.Item) -> bool:
    return item.get_closest_marker("core") is not None


def pytest_collection_finish() -> None:
    """Let the collector pass by the tests themselves: many of them call it, some at every line."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Show it all again: hypothesis, for one, asks who refers to an object."""
    gc.unfreeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was not proved because this is Windows, or Wine stood in for it."""
    if WINDOWS:
        terminalreporter.section("not collected on Windows")
        for path, reason in _NOT_ON_WINDOWS.items():
            terminalreporter.line(f"{path}: {reason}")
    skipped = Counter(
        reason.partition(_WINE)[2]
        for report in terminalreporter.getreports("skipped")
        if isinstance(report.longrepr, tuple) and _WINE in (reason := report.longrepr[2])
    )
    if skipped:
        terminalreporter.section("limitations of Wine")
        for what, count in sorted(skipped.items()):
            terminalreporter.line(f"{what}: {count} tests not run")
    if WINE:
        terminalreporter.line(
            "Each system call is a message to a server: fewer connections (200 to echo, 1000 at "
            "once), a quarter of the property tests' examples, fewer rounds and bytes where a "
            "test repeats itself, no step that takes a handle from its port, and of the clauses "
            "through the driver `trio` the core; without the accelerator, the core through one "
            "driver."
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """End the process, with every stack, when a test hangs where no signal reaches it."""
    output = item.config.stash[_ERROR_OUTPUT]
    mark = item.get_closest_marker("timeout")
    limit = float(mark.args[0]) + HANG_LIMIT if mark is not None and mark.args else HANG_LIMIT
    faulthandler.dump_traceback_later(limit, exit=True, file=output)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(params=backends.selected())
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend of this system in turn."""
    name: str = request.param
    backends.require(name)
    return name


@pytest.fixture(scope="session", autouse=True)
def _first_use(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use everything once: what a system opens for a process's first use stays open."""
    if not WINDOWS:
        # The pipe that a process keeps from the first time that its main thread waits.
        with contextlib.suppress(portio.BackendUnavailableError), portio.Port() as port:
            port.get(1e-9)
        return
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket() as ours,
        portio.open(tmp_path_factory.mktemp("first") / "use", "w+") as file,
        portio.Port() as port,
    ):
        accept = portio.Accept(port.associate(listener))
        connect = portio.Connect(port.associate(ours), listener.getsockname())
        port.submit(accept, connect, portio.Timer(0), portio.Sync(port.associate(file)))
        for _ in range(4):
            port.get(LIMIT)
        accept.result().close()


@pytest.fixture
def no_leak(_first_use: None) -> Iterator[None]:
    """The test leaves no descriptor, or handle, behind."""
    before = open_handles()
    yield
    if open_handles().keys() - before.keys():
        gc.collect()
        # What the kernel closes on its own time, a ring for one, may take a moment.
        deadline = time.monotonic() + 10
        while (leaked := _new(before)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not leaked, f"descriptors left open: {leaked}"


def _new(before: dict[int, str]) -> dict[int, str]:
    return {fd: name for fd, name in open_handles().items() if fd not in before}


@pytest.fixture
def closing(no_leak: None) -> Iterator[contextlib.ExitStack]:
    """What the test needs closed at its end, after its ports."""
    del no_leak
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def net(closing: contextlib.ExitStack) -> Net:
    """Sockets of every family, closed at the end of the test."""
    return Net(closing)


@pytest.fixture
def make_driver(
    backend: str, driver_name: str, closing: contextlib.ExitStack
) -> Iterator[Callable[..., Driver]]:
    """Makes drivers of the kind that is being tested."""
    del closing  # it is closed after the drivers
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Driver:
            driver = DRIVERS[driver_name](backend, **options)
            stack.callback(driver.close)
            return driver

        yield make


@pytest.fixture(params=list(DRIVERS))
def driver_name(request: pytest.FixtureRequest) -> str:
    """The name of each driver in turn."""
    name: str = request.param
    return name


@pytest.fixture
def driver(make_driver: Callable[..., Driver]) -> Iterator[Driver]:
    """A driver; at the end of the test it must hold nothing that was not taken."""
    driver = make_driver()
    yield driver
    if not driver.port.closed:
        driver.assert_quiet()


@pytest.fixture
def make_port(backend: str, closing: contextlib.ExitStack) -> Iterator[Callable[..., portio.Port]]:
    """Makes ports of the backend that is being tested, for tests that serve them themselves."""
    del closing  # it is closed after the ports
    with contextlib.ExitStack() as stack:

        def make(concurrency: int = 0, **options: Any) -> portio.Port:
            port = portio.Port(concurrency, backend=backend, **options)
            stack.callback(port.close)
            return port

        yield make


@pytest.fixture(params=["shared", "thread_bound"])
def port(make_port: Callable[..., portio.Port], request: pytest.FixtureRequest) -> portio.Port:
    """A port of each kind in turn, used by the test with its own hands."""
    return make_port(thread_bound=request.param == "thread_bound")


@pytest.fixture
def shared_port(make_port: Callable[..., portio.Port]) -> portio.Port:
    """A port that any thread may use."""
    return make_port()
