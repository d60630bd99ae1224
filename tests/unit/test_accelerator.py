"""The hot path in C: the same books as Python's, and no way around its checks."""

from __future__ import annotations

import copy
import gc
import socket
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

import portio
import portio.backends
from portio import accelerator
from portio.operations.base import Entry
from support.books import assert_balanced, refuse
from support.marks import needs_c
from support.net import reset
from support.taking import take
from support.watch import LIMIT

ROUNDS = 200


class Accept(portio.Accept):
    """Is for Python to carry on, since it begins its turns in its own way."""

    def _next_turn(self, entry: Entry, token: int) -> Entry:
        return super()._next_turn(entry, token)


@pytest.fixture
def port(backend: str) -> Iterator[portio.Port]:
    with portio.Port(backend=backend) as port:
        yield port


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as ours:
        peer, _ = listener.accept()
        with peer:
            yield ours, peer


@pytest.fixture
def file(port: portio.Port, tmp_path: Path) -> Iterator[portio.CompletionKey]:
    with port.associate(portio.open(tmp_path / "file", "w+b")) as key:
        yield key


@pytest.fixture
def key(port: portio.Port, pair: tuple[socket.socket, socket.socket]) -> portio.CompletionKey:
    return port.associate(pair[0])


def transfers(key: portio.CompletionKey, file: portio.CompletionKey) -> list[Any]:
    return [
        portio.Recv(key, bytearray(8)),
        portio.Send(key, b"12345678"),
        portio.Write(file, b"12345678", 4),
        portio.Read(file, bytearray(8), 4),
    ]


@needs_c
@pytest.mark.parametrize("quiet", [False, True])
def test_the_usual_cases_are_done_in_c(
    port: portio.Port,
    key: portio.CompletionKey,
    pair: tuple[socket.socket, socket.socket],
    file: portio.CompletionKey,
    monkeypatch: pytest.MonkeyPatch,
    quiet: bool,
) -> None:
    port.post()  # the first token is for the rule to make
    assert port.get(LIMIT) is not None
    monkeypatch.setattr(portio.Port, "_submit_by_rule", refuse)
    pair[1].send(b"12345678")
    for operation in transfers(key, file):
        port.submit(operation, quiet=quiet)
        if not quiet:
            taken = port.get(LIMIT)
            assert taken is not None
            assert taken.operation is operation
            assert taken.nbytes == taken.result() == 8
        while operation.pending:
            port.get(0)
        assert operation.result() == 8
    assert_balanced(port)


@needs_c
def test_a_batch_is_submitted_in_c(
    port: portio.Port,
    key: portio.CompletionKey,
    pair: tuple[socket.socket, socket.socket],
    file: portio.CompletionKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port.post()
    assert port.get(LIMIT) is not None
    pair[1].send(b"12345678")
    operations = transfers(key, file)[:3]  # reading is for afterwards
    with monkeypatch.context() as patched:
        patched.setattr(portio.Port, "_submit_by_rule", refuse)
        port.submit(*operations)
    taken = {id(done.operation): done for _ in operations if (done := port.get(LIMIT))}
    assert [taken[id(operation)].result() for operation in operations] == [8, 8, 8]
    # Of these none is started, whichever of them is wrong.
    good, wrong = portio.Recv(key, bytearray(8)), portio.Recv(key, b"12345678")
    again = portio.Send(key, b"12345678")
    for bad in ((good, wrong), (wrong, good), (good, again, again), (good, object())):
        with pytest.raises((TypeError, BufferError, RuntimeError)):
            port.submit(*bad)  # type: ignore[arg-type]
        assert not good.pending
        assert not again.pending
    assert_balanced(port)


@pytest.mark.parametrize("by_rule", ["the submission", "the completion", "neither", "both"])
def test_either_form_takes_up_what_the_other_has_begun(
    port: portio.Port,
    key: portio.CompletionKey,
    pair: tuple[socket.socket, socket.socket],
    file: portio.CompletionKey,
    by_rule: str,
) -> None:
    rule: Any = port
    submit: Callable[..., None] = port.submit
    if by_rule in ("the submission", "both"):
        submit = rule._submit_by_rule
    done: list[portio.Completion[Any]] = []
    for _ in range(ROUNDS):
        pair[1].send(b"12345678")
        for operation in transfers(key, file):
            submit(operation)
            if by_rule in ("the completion", "both"):
                # What only the rule does: a time-out that is neither None nor 0.
                done += port.get_many(1, LIMIT)
            else:
                while not done:
                    done += port.get_many(1, 0)
            (completion,) = done
            done.clear()
            assert completion.operation is operation
            assert completion.result() == operation.result() == 8
            assert completion.error is None
            assert completion.last
            assert not operation.pending
    assert_balanced(port)


@needs_c
@pytest.mark.parametrize("many", [False, True], ids=["get", "get_many"])
def test_pieces_are_taken_in_c(
    port: portio.Port,
    key: portio.CompletionKey,
    pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    many: bool,
) -> None:
    """And by the rule where C cannot: before and after, it is the same operation."""
    receive = portio.RecvMultishot(key, portio.BufferPool(port, 2, 8))
    port.submit(receive)
    seen = []
    with monkeypatch.context() as patched:
        patched.setattr(portio.Port, "_take_by_rule", refuse)
        for number in range(ROUNDS):
            pair[1].send(b"%08d" % number)
            done: Any = None
            while not done:
                done = port.get_many()[0] if many else port.get()
            assert done.operation is receive
            assert done.key is key
            assert (done.nbytes, done.error, done.last, done.payload) == (8, None, False, None)
            assert receive.pending
            seen.append(done.result())
    assert seen == [b"%08d" % number for number in range(ROUNDS)]
    accelerator.disconnect(port)
    pair[1].send(b"the rule")
    by_rule = port.get(LIMIT)
    assert by_rule is not None
    assert (by_rule.result(), by_rule.last) == (b"the rule", False)
    receive.cancel()
    end = port.get(LIMIT)
    assert end is not None
    assert end.last
    assert_balanced(port)


def rule_alone(port: portio.Port) -> None:
    accelerator.disconnect(port)


def in_c_again(port: portio.Port) -> None:
    native: Any = types.SimpleNamespace(ffi=port._ffi, lib=port._lib)
    accelerator.connect(port, native, port._native, portio.Completion)


@needs_c
@pytest.mark.parametrize("thread_bound", [False, True])
def test_an_iteration_is_made_in_c(
    backend: str, monkeypatch: pytest.MonkeyPatch, thread_bound: bool
) -> None:
    """As far as there are packets, and until the port is closed."""
    with portio.Port(backend=backend, thread_bound=thread_bound) as port:
        for number in range(ROUNDS):
            port.post(nbytes=number)
        with monkeypatch.context() as patched:
            for method in ("_advance", "_take_by_rule", "get"):
                patched.setattr(portio.Port, method, refuse)
            seen = [done.nbytes for _, done in zip(range(ROUNDS), port, strict=False)]
        assert seen == [*range(ROUNDS)]
        port.post(nbytes=1)
        steps = iter(port)
        assert steps is port
        assert next(steps).nbytes == 1
    assert [*port] == []
    with pytest.raises(StopIteration):
        next(steps)


@needs_c
@pytest.mark.parametrize("seed", range(10))
def test_a_batch_is_shared_by_all_ways_of_taking(backend: str, seed: int) -> None:
    """What one has taken ahead is the next one's, whichever form it has, and in order."""
    random = Random(seed)
    taken: list[int] = []
    with portio.Port(backend=backend, thread_bound=True) as port:
        ways: list[Callable[[], object]] = [
            lambda: taken.append(next(port).nbytes),
            lambda: taken.append(take(port).nbytes),
            lambda: taken.extend(done.nbytes for done in port.get_many(3)),
        ]
        for number in range(ROUNDS):
            port.post(nbytes=number)
        while len(taken) < ROUNDS:
            random.choice([rule_alone, in_c_again])(port)
            random.choice(ways)()
        assert taken == [*range(ROUNDS)]
        in_c_again(port)
        assert_balanced(port)


@needs_c
@pytest.mark.parametrize("thread_bound", [False, True])
def test_what_interrupts_a_step_loses_nothing(
    backend: str, monkeypatch: pytest.MonkeyPatch, thread_bound: bool
) -> None:
    """A step that raises when it has made the completion, or before."""
    with (
        portio.Port(backend=backend, thread_bound=thread_bound) as port,
        port.associate(socket.create_server(("127.0.0.1", 0))) as listener,
    ):
        accept = Accept(listener, multishot=True)
        port.submit(accept)
        rule = portio.Port._take_by_rule  # type: ignore[attr-defined]

        def before(*_: object) -> None:
            monkeypatch.undo()
            raise KeyboardInterrupt

        def after(*arguments: object) -> None:
            monkeypatch.undo()
            rule(*arguments)
            raise KeyboardInterrupt

        for interrupted in (before, after, before, after):
            monkeypatch.setattr(portio.Port, "_take_by_rule", interrupted)
            assert isinstance(listener.handle, socket.socket)
            with socket.create_connection(listener.handle.getsockname()):
                with pytest.raises(KeyboardInterrupt):
                    next(port)
                done = next(port)
                assert done.operation is accept
                done.result().close()
        accept.cancel()
        assert next(port).last
        assert_balanced(port)


@needs_c
@pytest.mark.parametrize("kind", [portio.RecvMultishot, portio.RecvLent])
@pytest.mark.parametrize("how", ["end", "reset", "cancel"])
def test_the_end_of_a_stream_is_taken_in_c(
    port: portio.Port,
    key: portio.CompletionKey,
    pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    kind: type[portio.RecvMultishot | portio.RecvLent],
    how: str,
) -> None:
    """Whether it is an error or not: no step is Python's."""
    for method in ("settle", "lend"):
        monkeypatch.setattr(portio.BufferPool, method, refuse)
    monkeypatch.setattr(portio.Port, "_take_by_rule", refuse)
    receive = kind(key, portio.BufferPool(port, 1, 8))
    port.submit(receive)
    errors = {"end": type(None), "reset": ConnectionResetError}
    if how == "cancel":
        receive.cancel()
    else:
        if how == "reset":
            reset(pair[1])
        pair[1].close()
    done = take(port)
    assert type(done.error) is errors.get(how, portio.OperationCancelledError)
    assert (done.nbytes, done.last, receive.pending) == (0, True, False)
    if how == "end":
        rest: Any = done.result()
        assert bytes(rest) == b""
        assert isinstance(rest, bytes) or not rest.readonly
        assert receive.result() is rest
    assert_balanced(port)


def test_pieces_of_a_handle_that_was_closed_behind_our_back(
    port: portio.Port, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Its number is another's: the next turn must not use it (K6)."""
    ours, peer = pair
    handle = Handle(ours.fileno())
    receive = portio.RecvMultishot(port.associate(handle), portio.BufferPool(port, 1, 8))
    port.submit(receive)
    peer.send(b"12345678")
    closed = []

    def close() -> None:
        closed.append(ours.close())
        handle.descriptor = -1

    handle.asked = close
    pieces = [port.get(LIMIT)]
    if not closed:  # the rule does not ask the handle; the descriptor is looked at instead
        close()
        receive.cancel()
    pieces.append(port.get(LIMIT))
    assert [piece.result() for piece in pieces[:1] if piece is not None] == [b"12345678"]
    assert pieces[1] is not None
    assert pieces[1].error is not None
    assert pieces[1].last
    assert_balanced(port)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_pieces_of_a_handle_that_raises(
    port: portio.Port, pair: tuple[socket.socket, socket.socket], error: type[BaseException]
) -> None:
    """An interrupt goes on, and loses nothing; what the rule has no use for is dropped."""
    ours, peer = pair
    handle = Handle(ours.fileno())
    receive = portio.RecvMultishot(port.associate(handle), portio.BufferPool(port, 1, 8))
    port.submit(receive)
    peer.send(b"12345678")

    def fail() -> None:
        raise error

    handle.asked = fail
    piece = None
    try:
        piece = port.get(LIMIT if not accelerator.ACCELERATED else None)
    except (KeyboardInterrupt, SystemExit) as raised:
        assert type(raised) is error
        piece = port.get(LIMIT)
    else:
        assert not accelerator.ACCELERATED or error is RuntimeError
    handle.asked = int
    assert piece is not None
    assert piece.result() == b"12345678"
    receive.cancel()
    assert port.get(LIMIT) is not None
    assert_balanced(port)


@needs_c
def test_what_is_long_once_gives_the_gil_away_for_good(
    port: portio.Port, key: portio.CompletionKey
) -> None:
    """Also when it was started while something else was looked at."""

    class Nested(portio.Timer):
        __slots__ = ()

        @property
        def _brief(self) -> bool:  # type: ignore[override]
            port.submit(portio.Send(key, bytes(200_000)), quiet=True)
            assert not port._brief
            return True

    assert port._brief
    port.submit(Nested(0))
    assert not port._brief


@needs_c
def test_nothing_is_counted_wrong(
    port: portio.Port, key: portio.CompletionKey, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Each object that passes has as many references afterwards as before."""
    buffer, data, fault = bytearray(8), bytearray(b"12345678"), object()
    receive, send = portio.Recv(key, buffer), portio.Send(key, data)
    pool = portio.BufferPool(port, 1, 4)
    endless = portio.RecvMultishot(key, pool)
    watched = (
        *(buffer, data, receive, send, key, port, fault, port._pending, port._free),
        *(pool, endless, pool._memory),
        # It lives for ever, and is not counted by everybody (PEP 683).
        *(() if sys.version_info >= (3, 12) else (None,)),
    )

    def walk() -> None:
        port.submit(endless)
        for _ in range(ROUNDS):
            pair[1].send(b"1234")
            piece = port.get()
            assert piece is not None
            assert piece.result() == b"1234"
        endless.cancel()
        assert port.get() is not None
        for _ in range(ROUNDS):
            pair[1].send(b"12345678")
            port.submit(receive)
            assert port.get() is not None
            port.submit(send, quiet=True)
            port.submit(receive)
            receive.cancel()
            port.get()
            for bad in (fault, portio.Recv(key, b""), portio.Send(portio.CompletionKey(), b"")):
                with pytest.raises((TypeError, BufferError, ValueError)):
                    port.submit(bad)  # type: ignore[arg-type]
            port.get_many(4, 0)
            pair[1].recv(8)

    walk()
    gc.collect()
    before = [sys.getrefcount(each) for each in watched]
    grown = []
    for _ in range(3):
        blocks = sys.getallocatedblocks()
        walk()
        gc.collect()
        grown.append(sys.getallocatedblocks() - blocks)
    after = [sys.getrefcount(each) for each in watched]
    for each, old, new in zip(watched, before, after, strict=True):
        assert abs(new - old) < ROUNDS // 2, each  # None has others who come and go
    # What is lost is lost in every walk; what others do in this process, as that which gives out
    # the tests, or what is made when the port has to sleep for the first time, is not.
    assert min(grown) < ROUNDS, grown


@pytest.mark.parametrize("by_rule", [False, True])
def test_what_is_started_tells_whether_it_has_ended(
    port: portio.Port,
    key: portio.CompletionKey,
    pair: tuple[socket.socket, socket.socket],
    file: portio.CompletionKey,
    by_rule: bool,
) -> None:
    """What portio.trio does: no packet if it has ended, else one, also of a success."""
    start: Callable[[portio.Operation[Any]], bool] = port._start
    if by_rule:
        rule: Any = port
        start = rule._start_by_rule
    operations = [
        *transfers(key, file),
        portio.Read(file, bytearray(20), 4),  # shorter than asked for
        portio.Send(key, [b"1234", b"5678"]),
        portio.Timer(0.0),
        portio.Sync(file),
    ]
    ends = 0
    for _ in range(ROUNDS // 10):
        pair[1].send(b"12345678")
        for operation in operations:
            if start(operation):
                ends += 1
                assert not operation.pending
            else:
                taken = port.get(LIMIT)
                assert taken is not None
                assert taken.operation is operation
                assert taken.error is None
            assert operation.result() in (8, None)
            assert port.get(0) is None
    assert_balanced(port)
    assert ends > 0 or backend_queues_all(port)
    for bad in (object(), portio.Recv(key, b""), portio.Recv(portio.CompletionKey(), bytearray(1))):
        with pytest.raises((TypeError, BufferError, ValueError)):
            start(bad)  # type: ignore[arg-type]
    waits = portio.Recv(key, bytearray(8))
    assert not start(waits)
    with pytest.raises(RuntimeError, match="pending already"):
        start(waits)


def backend_queues_all(port: portio.Port) -> bool:
    """Where the system has no way to leave out a packet."""
    return port.backend == "iocp" and "skip_success" not in (
        portio.backends.available()["iocp"].features
    )


class Handle:
    """An object with a descriptor, that does something when it is asked for it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.asked: Callable[[], object] = int

    def fileno(self) -> int:
        asked, self.asked = self.asked, int
        asked()
        return self.descriptor


@pytest.fixture
def handle(
    port: portio.Port, pair: tuple[socket.socket, socket.socket]
) -> tuple[Handle, portio.CompletionKey]:
    handle = Handle(pair[0].fileno())
    return handle, port.associate(handle)


def test_a_handle_that_submits_the_same_operation(
    port: portio.Port,
    handle: tuple[Handle, portio.CompletionKey],
    pair: tuple[socket.socket, socket.socket],
) -> None:
    receive = portio.Recv(handle[1], bytearray(8))
    handle[0].asked = lambda: port.submit(receive)
    with pytest.raises(RuntimeError, match="pending already"):
        port.submit(receive)
    pair[1].send(b"12345678")
    taken = port.get(LIMIT)
    assert taken is not None
    assert taken.result() == 8
    assert port.get(0) is None
    assert_balanced(port)


def test_a_handle_that_ends_its_key(
    port: portio.Port,
    handle: tuple[Handle, portio.CompletionKey],
    pair: tuple[socket.socket, socket.socket],
) -> None:
    receive = portio.Recv(handle[1], bytearray(8))
    handle[0].asked = handle[1].close
    with pytest.raises(ValueError, match="closed"):
        port.submit(receive)
    pair[0].detach()  # the key has closed it
    assert not receive.pending
    assert_balanced(port)


def test_a_handle_that_closes_the_port(
    port: portio.Port, handle: tuple[Handle, portio.CompletionKey]
) -> None:
    receive = portio.Recv(handle[1], bytearray(8))
    handle[0].asked = port.close
    with pytest.raises(portio.PortClosedError):
        port.submit(receive)
    assert not receive.pending


class Alarm(Exception):  # noqa: N818 (a signal is no error)
    """What a program's handler of a signal raises."""


@pytest.mark.parametrize("together", [False, True], ids=["alone", "with another"])
@pytest.mark.parametrize("raised", [KeyboardInterrupt, Alarm, OSError, AttributeError])
def test_what_a_handle_raises_is_raised_once(
    port: portio.Port,
    handle: tuple[Handle, portio.CompletionKey],
    raised: type[BaseException],
    together: bool,
) -> None:
    def interrupt() -> None:
        raise raised

    receive = portio.Recv(handle[1], bytearray(8))
    operations = [receive, portio.Send(handle[1], b"1")] if together else [receive]
    port.post()
    assert port.get(LIMIT) is not None
    handle[0].asked = interrupt
    with pytest.raises(raised):
        port.submit(*operations)
    assert handle[0].asked is int, "it was asked"
    assert not receive.pending
    assert_balanced(port)


def test_a_class_that_does_it_its_own_way(
    port: portio.Port, key: portio.CompletionKey, pair: tuple[socket.socket, socket.socket]
) -> None:
    class Framed(portio.Send):
        @property
        def buffer(self) -> bytes:  # type: ignore[override]
            return b"<" + self.content + b">"

        @buffer.setter
        def buffer(self, content: bytes) -> None:
            self.content = content

    class Plain(portio.Send):
        """Only has state."""

        started = 0

    for number in range(3):
        port.submit(Framed(key, b"a"))
        port.submit(Plain(key, b"b"))
        taken = [port.get(LIMIT), port.get(LIMIT)]
        assert {done.nbytes for done in taken if done is not None} == {3, 1}, number
    assert pair[1].recv(100) == b"<a>b" * 3


class Noted:
    """Notes which of its fields are set."""

    noted: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        object.__setattr__(self, "noted", (*self.noted, name))


@pytest.mark.parametrize("kind", [portio.Recv, portio.Accept, portio.AcceptKey])
def test_a_class_that_sets_its_fields_its_own_way(kind: Any) -> None:
    above = type("Above", (Noted, kind), {})
    below = type("Below", (kind, Noted), {})
    arguments = (None, b"") if kind is portio.Recv else (None,)
    for each in (above, below):
        operation = each(*arguments)
        assert operation.noted[0] == "key"
        assert "_entry" in operation.noted
        assert not operation.pending


@needs_c
def test_a_class_that_compares_its_own_way() -> None:
    kinds: Any = (portio.Send, portio.Recv)

    class Meta(type(portio.Recv)):  # type: ignore[misc]
        def __eq__(cls, other: object) -> bool:
            return cls is other

        __hash__ = None  # type: ignore[assignment]

    class Asking(type(portio.Recv)):  # type: ignore[misc]
        def __hash__(cls) -> int:
            for kind in kinds:
                kind(None, b"")
            return id(cls)

    class Marked(portio.Recv):  # so that there is something to look at
        flags = 0

    class Kept(portio.Recv):
        pass

    classes = [
        meta("Own", (portio.Recv,), {"flags": 0} if marked else {})
        for meta in (Meta, Asking)
        for marked in (False, True)
    ]
    Marked(None, b"")  # type: ignore[arg-type]
    before = sys.getrefcount(Kept)
    for each in classes:
        Kept(None, b"")  # type: ignore[arg-type]
        assert each(None, b"").buffer == b""
        assert sys.getrefcount(Kept) == before


def test_a_class_of_two_kinds_is_refused() -> None:
    with pytest.raises(TypeError):

        class Both(portio.Recv, portio.Send):  # type: ignore[misc]
            pass


def test_operations_and_completions_are_not_copied(
    port: portio.Port, key: portio.CompletionKey
) -> None:
    for each in (portio.Recv(key, bytearray(8)), portio.Timer(1)):
        with pytest.raises(TypeError, match="cannot be copied"):
            copy.copy(each)
    port.post()
    with pytest.raises(TypeError, match="cannot be copied"):
        copy.copy(port.get(LIMIT))


@needs_c
def test_what_is_long_gives_the_gil_away(
    port: portio.Port,
    key: portio.CompletionKey,
    pair: tuple[socket.socket, socket.socket],
    tmp_path: Path,
) -> None:
    """From the first operation on that may take long."""
    assert port._brief
    port.submit(portio.Recv(key, bytearray(8)), portio.Timer(3600))
    port.submit(portio.Send(key, b"1"), quiet=True)
    assert port._brief
    with portio.open(tmp_path / "file", "w+") as file:
        port.submit(portio.Write(port.associate(file), b"1"))
        assert not port._brief
    with portio.open(tmp_path / "file") as file, portio.Port(backend=port.backend) as other:
        other.submit(portio.Read(other.associate(file), bytearray(1)))
        assert not other._brief  # the kernel may wait for the device
    ours, peer = socket.socketpair()
    with portio.Port(backend=port.backend) as other, ours, peer:
        assert other._brief
        other.submit(portio.Recv(other.associate(ours), [bytearray(1), bytearray(1)]))
        assert not other._brief


class Raises:
    """Raises once, and after that does what it stands for."""

    def __init__(self, stands_for: Callable[..., Any]) -> None:
        self.stands_for = stands_for
        self.left = [KeyboardInterrupt()]

    def __call__(self, *arguments: Any) -> Any:
        if self.left:
            raise self.left.pop()
        return self.stands_for(*arguments)


class Settled(portio.Timer):
    """A timer that is interrupted when its record is settled."""

    def _prepare(self, port: Any, token: int, mode: int) -> Any:
        entry, request = super()._prepare(port, token, mode)
        assert entry is not None
        operation, key, settle, *rest = entry
        assert settle is not None
        return (operation, key, Raises(settle), *rest), request


class OwnTurns(portio.Accept):
    """An accept whose turns are for the rule."""

    def _next_turn(self, entry: Any, token: int) -> Any:
        return super()._next_turn(entry, token)


@pytest.mark.parametrize("by_rule", [False, True], ids=["settling", "a turn"])
def test_what_interrupts_a_batch_loses_nothing(
    port: portio.Port,
    key: portio.CompletionKey,
    pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    by_rule: bool,
) -> None:
    """Of a batch of which one packet is more than bytes, and interrupted as it is taken."""
    receive, posted = portio.Recv(key, bytearray(8)), object()
    other: portio.Operation[Any] = Settled(0.0)
    if by_rule:
        raises = Raises(portio.Port._outcome_of)

        def outcome_of(*arguments: Any) -> Any:
            return raises(*arguments)

        monkeypatch.setattr(portio.Port, "_outcome_of", outcome_of)
        listener = socket.create_server(("127.0.0.1", 0))
        other = OwnTurns(port.associate(listener), multishot=True)
        client = socket.create_connection(listener.getsockname())
    port.post(payload=posted)
    port.submit(other, receive)
    pair[1].send(b"12345678")
    found: list[portio.Completion[Any]] = []
    interrupts = 0
    while len(found) < 3:
        try:
            found += port.get_many()
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts == 1
    assert found[0].payload is posted
    assert {id(done.operation) for done in found[1:]} == {id(other), id(receive)}
    if by_rule:
        (accepted,) = (done.result() for done in found if done.operation is other)
        with client, accepted:
            client.send(b"x")
            assert accepted.recv(1) == b"x"
        assert other.key is not None
        other.key.close()
        end = port.get(LIMIT)
        assert end is not None
        assert end.last
    assert_balanced(port)


@needs_c
def test_cycles_are_collected(backend: str) -> None:
    class Receive(portio.Recv):
        __slots__ = ("__weakref__", "own")

    class Memory(bytearray):
        operation: Receive

    ours, peer = socket.socketpair()
    with ours, peer:
        port = portio.Port(backend=backend)
        key = port.associate(ours)
        memory = Memory(8)
        receive = Receive(key, memory)
        memory.operation = receive
        receive.own = port
        port.submit(receive)
        watch = weakref.ref(receive)
        port.close()
        del port, key, memory, receive
        gc.collect()
        assert watch() is None


def test_a_closed_port_says_so(port: portio.Port, key: portio.CompletionKey) -> None:
    receive = portio.Recv(key, bytearray(8))
    port.close()
    for refused in (lambda: port.submit(receive), port.get, port.get_many):
        with pytest.raises(portio.PortClosedError):
            refused()


@pytest.mark.parametrize("switch", ["0", "1"])
def test_the_text_is_that_of_the_rule(switch: str) -> None:
    from support.children import run_script

    told = run_script(
        """
        import inspect, portio
        print(inspect.signature(portio.Port.submit).parameters.keys())
        print(inspect.getdoc(portio.Port.submit))
        print(inspect.signature(portio.Completion.result).parameters.keys())
        print(inspect.getdoc(portio.Completion.result))
        print(inspect.getdoc(portio.Operation.pending))
        """,
        PORTIO_ACCELERATOR=switch,
    )
    assert "Starts operations; each completes exactly once." in told
    assert "'operations', 'queued', 'quiet'" in told
    assert "['self']" in told
    assert "The operation's result; of a posted packet the payload." in told
    assert "Whether it was submitted and its completion has not left the port yet." in told
