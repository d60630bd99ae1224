"""Connections that come with their keys: what the system refuses, and what comes in between.

The clauses are proved elsewhere; here is what they do not see: both forms of the steps, in C and
in Python, which take up what the other has begun, and a signal at every one of them.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
import socket
import sys
import threading
import types
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import portio
from portio import accelerator, adoption
from portio.registry import registry
from support.accepted import forget_the_dead, keys_of
from support.books import assert_balanced, refuse
from support.marks import needs_c
from support.system import WINDOWS
from support.taking import take
from support.watch import LIMIT

ROUNDS = 100
SLOT = 2**24 - 1  # of the name of a handle


@pytest.fixture(
    params=[pytest.param("C", marks=needs_c), "Python"],
)
def port(backend: str, request: pytest.FixtureRequest, no_leak: None) -> Iterator[portio.Port]:
    """A port whose steps are carried out in C, and one for which Python does them."""
    with portio.Port(backend=backend) as port:
        if request.param == "Python":
            by_rule(port)
        yield port


@pytest.fixture
def listener(port: portio.Port) -> Iterator[portio.CompletionKey]:
    with port.associate(socket.create_server(("127.0.0.1", 0))) as key:
        yield key


def by_rule(port: portio.Port) -> None:
    """From now on Python does everything."""
    accelerator.disconnect(port)


def in_c(port: portio.Port) -> None:
    """From now on C does what it can."""
    native = types.SimpleNamespace(ffi=port._ffi, lib=port._lib)
    accelerator.connect(port, native, port._native, portio.Completion)  # type: ignore[arg-type]


def connect(listener: portio.CompletionKey) -> socket.socket:
    handle = listener.handle
    assert isinstance(handle, socket.socket)
    return socket.create_connection(handle.getsockname(), timeout=LIMIT)


def accept(port: portio.Port, listener: portio.CompletionKey) -> portio.CompletionKey:
    operation = portio.AcceptKey(listener)
    port.submit(operation)
    done = take(port)
    assert done.operation is operation
    return done.result()  # type: ignore[no-any-return]


def assert_consistent() -> None:
    """Each socket of the registry is one of its entries."""
    for identity, descriptor in registry.sockets.items():
        assert registry.entries[descriptor].identity == identity


def is_open(number: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(number)
        return True
    return False


# What the system refuses


class Answering:
    """Stands for the engine's functions; the first answers to an adoption are its own."""

    def __init__(self, lib: Any, *answers: int) -> None:
        self.lib = lib
        self.answers = list(answers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lib, name)

    def portio_handle_adopt(self, native: Any, listener: int, number: int, opened: Any) -> Any:
        if self.answers:
            return self.answers.pop(0)
        return self.lib.portio_handle_adopt(native, listener, number, opened)

    def look(self, native: Any, listener: int, number: int, opened: Any) -> Any:
        """The same for C, which leaves a refusal to the rule, and that asks again."""
        if self.answers:
            return self.answers[0]
        return self.lib.portio_handle_adopt(native, listener, number, opened)


@pytest.fixture
def refusing(port: portio.Port, request: pytest.FixtureRequest) -> Callable[..., Answering]:
    """Has the engine give these answers first to whoever adopts."""
    engine: Any = port
    engine._lib = answering = Answering(port._lib)
    if request.node.callspec.params["port"] == "C":
        signature = "int(portio_port *, uint64_t, int64_t, portio_handle *)"
        look = port._ffi.callback(signature, answering.look)

        class Addresses:
            cast = port._ffi.cast

            @staticmethod
            def addressof(library: object, name: str) -> Any:
                keep = name != "portio_handle_adopt"
                return port._ffi.addressof(library, name) if keep else look

        native: Any = types.SimpleNamespace(ffi=Addresses, lib=answering.lib)
        accelerator.connect(port, native, port._native, portio.Completion)
        engine._lib.callback = look  # it lives as long

    def refuse_first(*answers: int) -> Answering:
        answering.answers[:] = answers
        return answering

    return refuse_first


NO_ROOM = 10055 if WINDOWS else errno.ENOSPC


@pytest.mark.parametrize("multishot", [False, True])
def test_o10_a_connection_that_the_system_refuses(
    port: portio.Port,
    listener: portio.CompletionKey,
    refusing: Callable[..., Answering],
    multishot: bool,
) -> None:
    """It is closed, and an error of its own; an accept that goes on goes on."""
    operation = portio.AcceptKey(listener, multishot=multishot)
    engine = refusing(port._lib.PORTIO_SYSTEM - NO_ROOM)
    with connect(listener) as peer:
        port.submit(operation)
        done = take(port)
        assert peer.recv(1) == b""
    assert not engine.answers
    assert done.error is not None
    assert done.error.errno == errno.ENOSPC if not WINDOWS else done.error.winerror == NO_ROOM
    assert "portio.AcceptKey" in str(done.error)
    assert (done.nbytes, done.last) == (0, not multishot)
    with pytest.raises(OSError, match="AcceptKey"):
        done.result()
    if not multishot:
        with pytest.raises(OSError, match="AcceptKey"):
            operation.result()
        port.submit(operation)
    with connect(listener) as peer:
        done = take(port)
        assert done.operation is operation
        key = done.result()
        port.submit(portio.Send(key, b"x"))
        assert take(port).result() == 1
        assert peer.recv(1) == b"x"
        key.close()
    if multishot:
        operation.cancel()
        assert take(port).last
    assert_balanced(port)
    assert keys_of(port) == [listener]


def test_o15_o13_a_refusal_is_told(
    port: portio.Port, listener: portio.CompletionKey, refusing: Callable[..., Answering]
) -> None:
    """A quiet accept has a packet then, and one that is waited for its error."""
    operation = portio.AcceptKey(listener)
    for quiet in (True, False):
        refusing(port._lib.PORTIO_SYSTEM - NO_ROOM)
        with connect(listener) as peer:
            if quiet:
                port.submit(operation, quiet=True)
                done = port.get(LIMIT)
            else:
                port.submit(operation, queued=False)
                done = operation.wait(LIMIT)
            assert done is not None
            assert done.error is not None
            assert peer.recv(1) == b""
    assert_balanced(port)


@pytest.mark.parametrize("way", ["get", "get_many", "wait"])
def test_o14_no_memory(
    port: portio.Port, listener: portio.CompletionKey, refusing: Callable[..., Answering], way: str
) -> None:
    """It is raised, and nothing is lost: whoever asks again has the connection."""
    operation = portio.AcceptKey(listener)
    refusing(port._lib.PORTIO_NO_MEMORY, port._lib.PORTIO_NO_MEMORY)
    with connect(listener) as peer:
        port.submit(operation, queued=way != "wait")
        takes: dict[str, Callable[[], Any]] = {
            "get": lambda: port.get(LIMIT),
            "get_many": lambda: port.get_many(4, LIMIT),
            "wait": lambda: operation.wait(LIMIT),
        }
        for _ in range(2):
            with pytest.raises(MemoryError):
                takes[way]()
            assert operation.pending
        taken = takes[way]()
        done = taken[0] if way == "get_many" else taken
        key = done.result()
        key.close()
        assert peer.recv(1) == b""
    assert way == "wait" or port.get(0) is None
    assert_balanced(port)


def test_p7_a_port_that_closes_before_there_was_memory(
    backend: str, listener: portio.CompletionKey
) -> None:
    """What was accepted, and has not become a key, is closed."""
    del listener
    for queued in (True, False):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port: Any = portio.Port(backend=backend)
            by_rule(port)
            operation = portio.AcceptKey(port.associate(server))
            port._lib = Answering(port._lib, port._lib.PORTIO_NO_MEMORY)
            port.submit(operation, queued=queued)
            with connect(operation.key) as peer:
                with pytest.raises(MemoryError):
                    port.get(LIMIT) if queued else operation.wait(LIMIT)
                port.close()
                assert peer.recv(1) == b""
            assert not operation.pending


@pytest.mark.parametrize("dropped", [False, True])
def test_p7_a_port_that_closes_as_it_adopts(backend: str, no_leak: None, dropped: bool) -> None:
    """The key has no handle then, but is closed like others: by the program, or with the port."""

    class Closing(Answering):
        def portio_handle_adopt(self, *arguments: Any) -> Any:
            refused = self.lib.portio_port_close(port._native, 0)
            assert not refused
            if dropped:
                port.close()
            return super().portio_handle_adopt(*arguments)

    with socket.create_server(("127.0.0.1", 0)) as server:
        port: Any = portio.Port(backend=backend)
        by_rule(port)
        operation = portio.AcceptKey(port.associate(server))
        port._lib = Closing(port._lib)
        with connect(operation.key) as peer:
            port.submit(operation)
            if dropped:
                with pytest.raises(portio.PortClosedError):
                    port.get(LIMIT)
            else:
                key = take(port).result()
                assert key.port is port
                with pytest.raises(portio.PortClosedError):
                    port.submit(portio.Recv(key, bytearray(1)))
                key.close()
            assert peer.recv(1) == b""
        port.close()


@pytest.mark.parametrize("settled", [False, True])
def test_p7_rescued_packets_are_not_forgotten(
    backend: str, settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal has come before their caller had them; then the port is closed elsewhere."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        made: list[Any] = []

        def own() -> None:
            port = portio.Port(backend=backend, thread_bound=True)
            by_rule(port)
            operation = portio.AcceptKey(port.associate(server))
            port.submit(operation)
            made.extend((port, operation, connect(operation.key)))
            with monkeypatch.context() as patched:
                taking = Interrupt(portio.Port._outcome_of, late=settled)
                patched.setattr(portio.Port, "_outcome_of", taking)
                with pytest.raises(KeyboardInterrupt):
                    port.get(LIMIT)

        thread = threading.Thread(target=own)
        thread.start()
        thread.join(LIMIT)
        port, operation, peer = made
        with peer:
            assert operation.pending
            port.close()
            assert not operation.pending
            assert peer.recv(1) == b""
        assert keys_of(port) == [operation.key]


def test_p7_a_completion_that_was_rescued(
    port: portio.Port, listener: portio.CompletionKey
) -> None:
    """Nobody will take it any more: its connection ends with the port."""
    operation = portio.AcceptKey(listener, multishot=True)
    port.submit(operation)
    with connect(listener) as peer:
        done = take(port)
        assert not done.last
        port._rescue([done], array("q"))
        key = done.result()
        del done
        port.close()
        assert key.closed
        assert peer.recv(1) == b""


class Interrupt:
    """Raises KeyboardInterrupt before or after what it stands for, the first time."""

    def __init__(self, stands_for: Callable[..., Any], *, late: bool = True) -> None:
        self.stands_for = stands_for
        self.late = late
        self.raised = False

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if not self.late and not self.raised:
            self.raised = True
            raise KeyboardInterrupt
        result = self.stands_for(*arguments, **keywords)
        if not self.raised:
            self.raised = True
            raise KeyboardInterrupt
        return result

    def __get__(self, instance: object, owner: object = None) -> Any:
        return self if instance is None else lambda *all_of: self(instance, *all_of)


# The forms


@needs_c
def test_a_connection_is_served_in_c(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python code, where a signal handler may come first, has no part in it."""
    with (
        portio.Port(backend=backend) as port,
        port.associate(socket.create_server(("127.0.0.1", 0))) as listener,
    ):
        listener.accepting_form()
        port.post()  # the first token is for the rule to make
        take(port)
        forget_the_dead()
        for method in ("submit", "take"):
            monkeypatch.setattr(portio.Port, f"_{method}_by_rule", refuse)
        for method in ("_close_by_rule", "_absent", "attach_accepted"):
            monkeypatch.setattr(portio.CompletionKey, method, refuse)
        operation = portio.AcceptKey(listener)
        receive = None
        for _ in range(3):
            with connect(listener) as peer:
                port.submit(operation)
                done = port.get()
                assert done is not None
                key = done.result()
                assert (done.nbytes, done.error, done.last) == (0, None, True)
                assert operation.result() is key
                assert (type(key), key.port, key.data) == (portio.CompletionKey, port, None)
                receive = portio.Recv(key, bytearray(4))
                port.submit(receive)
                peer.send(b"1234")
                done = port.get()
                assert done is not None
                assert done.result() == 4
                key.close()
                assert peer.recv(1) == b""
        monkeypatch.undo()
        assert_balanced(port)
        assert keys_of(port) == [listener]


@needs_c
@pytest.mark.parametrize("steps", list(itertools.product("CP", repeat=4)), ids="".join)
def test_either_form_takes_up_what_the_other_has_begun(
    backend: str, steps: tuple[str, ...]
) -> None:
    """Submission, completion, transfer and close, each in one of them."""
    with (
        portio.Port(backend=backend) as port,
        port.associate(socket.create_server(("127.0.0.1", 0))) as listener,
    ):
        forms = iter([in_c if step == "C" else by_rule for step in steps])
        operation = portio.AcceptKey(listener)
        with connect(listener) as peer:
            next(forms)(port)
            port.submit(operation)
            next(forms)(port)
            key = take(port).result()
            next(forms)(port)
            port.submit(portio.Send(key, b"x"))
            assert take(port).result() == 1
            assert peer.recv(1) == b"x"
            if steps.count("C") % 2:
                handle: Any = key.handle
                assert handle.fileno() == key._descriptor
            next(forms)(port)
            key.close()
            assert peer.recv(1) == b""
        assert_balanced(port)
        assert keys_of(port) == [listener]


def test_the_steps_of_python_leave_the_number_bare(
    port: portio.Port, listener: portio.CompletionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No operation needs the object, nor does the end; what is misused does not either."""
    with connect(listener) as peer:
        key = accept(port, listener)
        monkeypatch.setattr(portio.CompletionKey, "_make_handle", refuse)
        port.submit(portio.Send(key, b"x"), portio.Timer(0))
        port.submit(portio.Accept(key))
        for _ in range(3):
            take(port)
        repr(key)
        assert key.means(key._descriptor)
        key.close()
        assert recv(peer, 2) == b"x"


def recv(peer: socket.socket, count: int) -> bytes:
    return b"".join(iter(lambda: peer.recv(count), b""))


def test_the_record_of_a_handle_is_used_again(
    port: portio.Port, listener: portio.CompletionKey
) -> None:
    """However the connection has ended, the engine has nothing of it."""
    names = set()
    for number in range(6):
        with connect(listener) as peer:
            key = accept(port, listener)
            names.add(key._id & SLOT)
            if number % 2:
                assert key.handle is not None
            if number // 2 == 0:
                key.close()
            elif number // 2 == 1:
                with pytest.warns(ResourceWarning, match="socket"):
                    del key
                    gc.collect()
            else:
                socket.close(key._descriptor)
                key.close()
            assert peer.recv(1) == b""
    assert len(names) == 1


def test_stale_entries_of_the_registry(port: portio.Port, listener: portio.CompletionKey) -> None:
    """Of a key that is gone, and of one whose number or inode has come back."""
    with connect(listener) as peer:
        key = accept(port, listener)
        number, identity = key._descriptor, key._identity
        key.close()
        assert peer.recv(1) == b""
    gone, lost = portio.CompletionKey(), portio.CompletionKey()
    for stale in (gone, lost):
        with registry.lock:
            registry.add(number, 0 if stale is gone else identity, stale)
            if stale is lost:
                registry.sockets[identity] = number
                stale.__setattr__("_port", port)
                stale._descriptor = number
                stale._accepting = socket.socket, 2, 1, 0
                del stale.handle
        if stale is gone:
            del stale, gone
            gone = portio.CompletionKey()
        with connect(listener) as peer:
            key = accept(port, listener)
            entry = registry.entries[key._descriptor]
            assert entry() is key
            assert entry.identity == key._identity
            if identity is not None:
                assert registry.sockets[key._identity] == key._descriptor
            key.close()
            assert peer.recv(1) == b""
    if number in registry.entries:
        registry.remove(number)
    lost.lose()
    assert keys_of(port) == [listener]


# Signals

DESTRUCTORS = "__del__", portio.CompletionKey._dropped.__name__


class Bell:
    """Raises KeyboardInterrupt as a signal handler would, at the nth chance of this thread.

    Python looks for signals when a function in C returns, and when one of its own begins; what
    a profiler hears of is just that.  What a destructor raises goes nowhere, so it is left in
    peace unless it is meant.
    """

    def __init__(self, chance: int) -> None:
        self.left = chance
        self.rung = False
        self.destructors = False

    def __call__(self, frame: types.FrameType, event: str, argument: object) -> None:
        if event not in ("c_return", "call") or self.rung:
            return
        if "portio" not in frame.f_code.co_filename and "socket" not in frame.f_code.co_filename:
            return
        if not self.destructors and is_destructor(frame):
            return
        if frame.f_code.co_name in DESTRUCTORS and event == "call":
            return  # before its first step nothing can be done about it
        self.left -= 1
        if self.left < 0:
            self.rung = True
            sys.setprofile(None)
            raise KeyboardInterrupt

    def ring_in(self, function: Callable[[], Any]) -> Any:
        """What the function gives, or None when it was interrupted."""
        before = sys.getprofile()
        try:
            sys.setprofile(self)
            return function()
        except KeyboardInterrupt:
            assert self.rung
        finally:
            sys.setprofile(before)
        return None


def is_destructor(frame: types.FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in DESTRUCTORS:
            return True
        frame = frame.f_back
    return False


class Bystanders:
    """Sockets that take every number that is free: who closes one twice closes one of them."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._sockets: list[socket.socket] = []

    def fill(self) -> None:
        for _ in range(3):
            self._sockets.append(self._stack.enter_context(socket.socket()))

    def assert_open(self) -> None:
        for each in self._sockets:
            each.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)


def chances() -> Iterator[Bell]:
    """A bell for each chance; the last one does not ring."""
    for chance in range(2000):
        bell = Bell(chance)
        yield bell
        if not bell.rung:
            return
    pytest.fail("it has no end")


def test_p8_as_a_connection_is_settled(port: portio.Port, listener: portio.CompletionKey) -> None:
    """It comes with the next call, once."""
    operation = portio.AcceptKey(listener)
    for bell in chances():
        with contextlib.ExitStack() as stack:
            bystanders = Bystanders(stack)
            peer = stack.enter_context(connect(listener))
            port.submit(operation)
            done = bell.ring_in(lambda: port.get(LIMIT))
            bystanders.fill()
            if done is None:
                done = take(port)
            key = done.result()
            assert keys_of(port) == [listener, key]
            assert is_open(key._descriptor) or WINDOWS
            port.submit(portio.Send(key, b"x"))
            assert take(port).result() == 1
            key.close()
            assert recv(peer, 2) == b"x"
            bystanders.assert_open()
            assert_consistent()
            assert port.get(0) is None
    assert port._pending == {}  # a token may have got lost, which is no harm


def test_p8_as_a_refused_connection_is_closed(
    port: portio.Port, listener: portio.CompletionKey, refusing: Callable[..., Answering]
) -> None:
    operation = portio.AcceptKey(listener)
    for bell in chances():
        with contextlib.ExitStack() as stack:
            bystanders = Bystanders(stack)
            engine = refusing(port._lib.PORTIO_SYSTEM - NO_ROOM)
            peer = stack.enter_context(connect(listener))
            port.submit(operation)
            done = bell.ring_in(lambda: port.get(LIMIT))
            bystanders.fill()
            if done is None:
                done = take(port)
            assert done.error is not None
            assert peer.recv(1) == b""
            bystanders.assert_open()
            assert_consistent()
            assert not engine.answers
    assert port._pending == {}  # a token may have got lost, which is no harm
    assert keys_of(port) == [listener]


def test_p8_as_the_handle_is_made(port: portio.Port, listener: portio.CompletionKey) -> None:
    """Whoever asks again has it; so does who drops the key."""
    for end in ("ask", "close", "drop"):
        for bell in chances():
            with contextlib.ExitStack() as stack:
                bystanders = Bystanders(stack)
                peer = stack.enter_context(connect(listener))
                key = accept(port, listener)
                number = key._descriptor
                bell.ring_in(lambda key=key: key.handle)
                if end == "ask":
                    handle: Any = key.handle
                    assert key.handle is handle
                    assert handle.fileno() == number
                    del handle
                if end == "drop":
                    with pytest.warns(ResourceWarning, match="socket"):
                        del key
                        gc.collect()
                else:
                    key.close()
                bystanders.fill()
                assert peer.recv(1) == b""
                gc.collect()
                bystanders.assert_open()
                assert_consistent()
    assert keys_of(port) == [listener]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_p8_as_a_key_is_dropped(
    port: portio.Port, listener: portio.CompletionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(what.exc_type))
    for bell in chances():
        bell.destructors = True
        with contextlib.ExitStack() as stack:
            bystanders = Bystanders(stack)
            peer = stack.enter_context(connect(listener))
            keys = [accept(port, listener)]
            bell.ring_in(keys.clear)
            bystanders.fill()
            assert peer.recv(1) == b""
            bystanders.assert_open()
    assert keys_of(port) == [listener]
    assert set(told) == {KeyboardInterrupt}


def test_a_key_that_an_exception_drops(port: portio.Port, listener: portio.CompletionKey) -> None:
    """Its end runs while the exception is on its way, and leaves it alone."""
    with connect(listener) as peer:
        with pytest.warns(ResourceWarning), pytest.raises(ZeroDivisionError):
            _ = accept(port, listener), 1 // 0
        assert peer.recv(1) == b""


@pytest.mark.parametrize("asked", [False, True], ids=["bare", "asked"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of an object that is dropped half-way
def test_p8_as_a_key_is_closed(
    port: portio.Port, listener: portio.CompletionKey, asked: bool
) -> None:
    """The connection ends, and its operations, now or when the key is closed again."""
    for bell in chances():
        with contextlib.ExitStack() as stack:
            bystanders = Bystanders(stack)
            peer = stack.enter_context(connect(listener))
            key = accept(port, listener)
            if asked:
                assert key.handle is not None
            receive = portio.Recv(key, bytearray(4))
            port.submit(receive)
            bell.ring_in(key.close)
            bystanders.fill()
            key.close()
            assert key.closed
            gc.collect()
            assert peer.recv(1) == b""
            done = take(port)
            assert done.operation is receive
            assert isinstance(done.error, portio.OperationCancelledError)
            gc.collect()
            bystanders.assert_open()
            assert_consistent()
    assert_balanced(port)
    assert keys_of(port) == [listener]


@needs_c
def test_nothing_is_counted_wrong(backend: str) -> None:
    """Each object that passes has as many references afterwards as before."""
    with (
        portio.Port(backend=backend) as port,
        port.associate(socket.create_server(("127.0.0.1", 0))) as listener,
    ):
        single, endless = portio.AcceptKey(listener), portio.AcceptKey(listener, multishot=True)
        form = listener.accepting_form()
        watched = (
            *(single, endless, port, listener, listener.handle, form, None),
            *(socket.socket, portio.CompletionKey, portio.AcceptKey, adoption.Adopting),
            *(registry, registry.lock, registry.entries, registry.sockets, adoption.adopt),
        )

        def walk() -> None:
            for number in range(ROUNDS):
                operation = endless if number % 4 == 3 else single
                with connect(listener):
                    port.submit(operation)
                    key = take(port).result()
                    if number % 2:
                        assert key.handle is not None
                    key.close()
                    if operation is endless:
                        operation.cancel()
                        take(port)

        walk()
        gc.collect()
        before = [sys.getrefcount(each) for each in watched]
        blocks = sys.getallocatedblocks()
        walk()
        gc.collect()
        after = [sys.getrefcount(each) for each in watched]
        for each, old, new in zip(watched, before, after, strict=True):
            assert abs(new - old) < ROUNDS // 2, each
        assert sys.getallocatedblocks() - blocks < ROUNDS
        assert_balanced(port)


def test_the_collector_finds_what_settles(backend: str) -> None:
    """A port that is dropped with an accept pending is a cycle through it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def abandon() -> int:
            port = portio.Port(backend=backend)
            port.submit(portio.AcceptKey(port.associate(server)))
            return id(port)

        def count() -> int:
            gc.collect()
            gc.collect()  # what the end of the port has put into its books goes now
            return sum(type(each) is adoption.Adopting for each in gc.get_objects())

        before = count()
        with pytest.warns(ResourceWarning, match="Port"):
            abandon()
            gc.collect()
        assert count() <= before


@pytest.mark.skipif(WINDOWS, reason="a number cannot be chosen there")
@pytest.mark.parametrize("step", ["before", "within", "after"])
@pytest.mark.parametrize("reused", [False, True])
def test_a_key_that_is_closed_as_its_handle_is_made(
    port: portio.Port,
    listener: portio.CompletionKey,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    reused: bool,
) -> None:
    """By a destructor or a signal handler: the number is another's from then on."""
    with connect(listener) as peer, open(os.devnull, "rb") as other:
        key = accept(port, listener)
        number = key._descriptor
        identify, make = portio.keys.identify, socket.socket.__init__

        def close() -> None:
            monkeypatch.undo()
            key.close()
            if reused:
                os.dup2(other.fileno(), number)

        def identify_late(descriptor: int) -> Any:
            close()
            return identify(descriptor)

        def make_late(*arguments: Any) -> None:
            if step == "after":
                make(*arguments)
            close()
            if step == "within":
                make(*arguments)

        if step == "before":
            monkeypatch.setattr("portio.keys.identify", identify_late)
        else:
            monkeypatch.setattr(socket.socket, "__init__", make_late)
        assert key.handle is None
        assert key.closed
        assert peer.recv(1) == b""
        gc.collect()
        if reused:
            assert os.path.sameopenfile(number, other.fileno())
            os.close(number)
