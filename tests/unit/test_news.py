"""Waiting for news of packets, without taking one: what shared ports do who need the GIL first."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator

import pytest

import portio
from portio import accelerator
from support.threads import Background, in_thread
from support.watch import LIMIT

FOREVER = -1
SECOND = 1_000_000_000


@pytest.fixture
def port(backend: str) -> Iterator[portio.Port]:
    with portio.Port(8, backend=backend) as port:
        if news(port, 0) == port._lib.PORTIO_UNSUPPORTED:
            pytest.skip(f"{backend} hands out packets only")
        yield port


def news(port: portio.Port, timeout: int) -> int:
    """What the door says: 1 for news."""
    return port._lib.portio_get(port._native, port._null, 0, timeout)


def come(port: portio.Port) -> int:
    """Who has heard of packets comes for one: its `nbytes`, or -1."""
    numbers, records = port._make_array()
    count = port._lib.portio_get(port._native, records, 1, port._lib.PORTIO_AS_CALLED)
    assert count in (0, 1)
    out: list[portio.Completion[object]] = []
    if count:
        port._take(out, *numbers[:3])
    return out[0].nbytes if out else -1


def waiting(port: portio.Port) -> Background[int]:
    """A thread that waits for news, and has nothing else to do."""
    return Background(news, port, int(LIMIT) * SECOND)


def test_news_take_nothing(port: portio.Port) -> None:
    assert news(port, 0) == 0
    assert in_thread(news, port, SECOND // 50) == 0
    port.post(None, 7)
    assert news(port, 0) == 1
    assert in_thread(news, port, FOREVER) == 1
    done = port.get(0)
    assert done is not None
    assert done.nbytes == 7
    assert news(port, 0) == 0


def test_who_was_called_and_takes_its_time(port: portio.Port) -> None:
    """Nobody who takes packets has to wait for that, and all are called in the end."""
    called, comes = threading.Event(), threading.Event()

    def hear() -> portio.Completion[object] | None:
        assert news(port, FOREVER) == 1
        called.set()
        assert comes.wait(LIMIT)
        return port.get(0)

    worker = Background(hear)
    port.post(None, 1)
    assert called.wait(LIMIT)
    others = [waiting(port) for _ in range(3)]
    taken = port.get(0)  # the packet is nobody's yet
    assert taken is not None
    assert taken.nbytes == 1
    with Background(port.get, LIMIT) as taker:
        port.post(None, 2)
        done = taker.result()
        assert done is not None
        assert done.nbytes == 2
    port.post(None, 3)
    comes.set()
    last = worker.result()
    assert last is not None
    assert last.nbytes == 3
    port.post()  # which nobody takes, so each of them is called when the one before has ended
    assert [other.result() for other in others] == [1, 1, 1]
    assert port.get(0) is not None


def test_who_comes_too_late_leaves_it_to_those_who_run(port: portio.Port) -> None:
    """And waits, but not for ever: who runs may never come back."""
    heard, comes = threading.Event(), threading.Event()

    def hear() -> list[int]:
        assert news(port, FOREVER) == 1
        heard.set()
        assert comes.wait(LIMIT)
        return [come(port), news(port, FOREVER), come(port)]

    with Background(hear) as worker:
        port.post(None, 7)
        assert heard.wait(LIMIT)
        done = port.get(0)  # from now on this thread runs
        assert done is not None
        assert done.nbytes == 7
        port.post(None, 8)
        comes.set()
        assert worker.result() == [-1, 1, 8]


def test_who_was_late_is_called_when_nobody_runs_any_more(port: portio.Port) -> None:
    heard, comes, late = threading.Event(), threading.Event(), threading.Event()

    def hear() -> list[int]:
        assert news(port, FOREVER) == 1
        heard.set()
        assert comes.wait(LIMIT)
        taken = [come(port)]
        late.set()
        return [*taken, news(port, FOREVER), come(port)]

    with Background(hear) as worker:
        port.post(None, 7)
        assert heard.wait(LIMIT)
        assert in_thread(port.get, 0) is not None  # a thread that ends, and runs no more
        comes.set()
        assert late.wait(LIMIT)
        port.post(None, 8)
        assert worker.result() == [-1, 1, 8]


def test_who_comes_in_time_takes_what_there_is(port: portio.Port) -> None:
    def hear() -> list[int]:
        return [news(port, FOREVER), come(port), come(port)]

    with Background(hear) as worker:
        port.post(None, 7)
        assert worker.result() == [1, 7, -1]


def test_who_has_heard_of_nothing_takes_what_there_is(backend: str) -> None:
    with portio.Port(8, backend=backend) as port:
        for number in (7, 8):
            port.post(None, number)
        assert [come(port), come(port), come(port)] == [7, 8, -1]


def test_a_thread_that_was_called_and_ends(port: portio.Port) -> None:
    """The next one is called."""
    for _ in range(20):
        first = waiting(port)
        port.post()
        assert first.result() == 1  # and it ends without a look
        second = waiting(port)
        assert second.result() == 1
        assert port.get(0) is not None


def test_closing_ends_the_wait(backend: str) -> None:
    with portio.Port(backend=backend) as port:
        if news(port, 0) == port._lib.PORTIO_UNSUPPORTED:
            pytest.skip(f"{backend} hands out packets only")
        workers = [waiting(port) for _ in range(3)]
        port.close()
        assert {worker.result() for worker in workers} == {port._lib.PORTIO_CLOSED}


def test_a_thread_bound_port_has_none(backend: str) -> None:
    with portio.Port(backend=backend, thread_bound=True) as port:
        assert news(port, 0) == port._lib.PORTIO_UNSUPPORTED


@pytest.mark.skipif(not accelerator.ACCELERATED, reason="the rule waits for packets")
@pytest.mark.parametrize("many", [False, True], ids=["get", "get_many"])
def test_the_main_thread_that_is_called_and_interrupted(
    port: portio.Port, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    """What it does not come for is for others."""
    asked = []

    def interrupted(*_: object) -> None:
        asked.append(1)
        if len(asked) % 2 == 0:
            raise KeyboardInterrupt

    for _ in range(20):
        with monkeypatch.context() as patched:
            patched.setattr(portio.Port, "_fill", interrupted)
            patched.setattr(portio.Port, "_next", interrupted)
            with Background(port.post), pytest.raises(KeyboardInterrupt):
                port.get_many() if many else port.get()
        assert in_thread(port.get, 0) is not None
        with waiting(port) as other:
            in_thread(port.post)
        assert other.result() == 1
        assert in_thread(port.get, 0) is not None
    assert len(asked) == 40


@pytest.mark.skipif(not accelerator.ACCELERATED, reason="the rule waits for packets")
@pytest.mark.parametrize("many", [False, True], ids=["get", "get_many"])
def test_the_main_thread_that_is_called_and_finds_a_rescued_packet(
    port: portio.Port, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    """It has come all the same, and others are called for what follows."""
    hear = portio.Port._hears_news
    rescues: list[Background[None]] = []
    lost: portio.Completion[object]

    def hear_of_it(port: portio.Port) -> bool:
        rescues.append(Background(port._rescue, [lost], array("q")))
        return hear(port)  # where it sleeps by the time that the thread runs, nearly always

    monkeypatch.setattr(portio.Port, "_hears_news", hear_of_it)
    for _ in range(20):
        lost = portio.Completion[object]()
        lost.operation, lost.key, lost.nbytes, lost._outcome = None, None, 777, None
        done = port.get_many() if many else [port.get()]
        assert done == [lost]
        rescues.pop().result()
        assert in_thread(port.get, 0) is None  # the nudge is no packet, and gone
        with waiting(port) as other:
            in_thread(port.post)
        assert other.result() == 1
        assert port.get(0) is not None
