"""The port itself: handles, and its own beginning and end.

A port is built in layers, each in a module with its own rules:

- engine.py: the functions of the engine, tokens and entries;
- turns.py: operations that complete many times;
- packets.py: packets that leave the port, and those that are posted;
- unqueued.py: waiting for one operation;
- submission.py: how operations start.


Closing.  The engine cancels and drains everything first; then, when the system
holds no pointer into the process any more, pins are released.  The engine's own
memory is freed with the port itself, which every call holds for as long as it
lasts (keepers.py).
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import warnings
from collections import deque
from functools import partial
from operator import index
from threading import get_ident
from typing import TYPE_CHECKING

from portio import accelerator, backends, errors, lifetime, system
from portio.adoption import Refused, adopt
from portio.backends import switches
from portio.completion import Outcome
from portio.engine import raise_forked
from portio.files import Handle
from portio.keys import CompletionKey, HandleLike, descriptor_of
from portio.operations import numbers
from portio.registry import Identity, identify, identity_of, registry
from portio.submission import Submission

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from portio.backends.native import CData, Native
    from portio.registered import Region

__all__ = ["Port"]

_MOST_CONCURRENCY = 2**32 - 1


class Port(Submission):
    """A completion port.

    `concurrency` is how many threads may run at once between taking a packet and
    asking for the next; 0 means the number of processors that this process may
    use.

    `backend` names the engine; None leaves the choice to PORTIO_BACKEND or to
    portio.

    A `thread_bound` port is used from the thread that creates it alone, and is
    faster for that; other threads may still `post` and cancel, and close it when
    that thread has ended.

    `lazy_submit`, for thread-bound ports only, lets submissions wait for the next
    `get`, `get_many`, `Operation.wait` or `flush` of the owner, which saves a
    system call each.  A program that instead waits for an effect of the operation
    elsewhere (a peer's answer, say) waits for ever.

    Raises ValueError and TypeError for bad arguments, `BackendUnavailableError`
    when there is no engine to use, and OSError when the system refuses a port.
    """

    __slots__ = (
        "_backend",
        "_closed",
        "_closing",
        "_concurrency",
        "_orphans",
        "_owner_native_id",
        "_owner_thread",
        "_regions",
    )

    def __init__(
        self,
        concurrency: int = 0,
        *,
        backend: str | None = None,
        thread_bound: bool = False,
        lazy_submit: bool = False,
    ) -> None:
        if hasattr(self, "_keeper"):
            raise RuntimeError(f"{self!r} is in use already")
        self._closed = True  # for __del__, until there is something to close
        self._forked = False
        concurrency = index(concurrency)
        if not 0 <= concurrency <= _MOST_CONCURRENCY:
            raise ValueError(f"concurrency must be from 0 to 2**32 - 1, not {concurrency}")
        if lazy_submit and not thread_bound:
            raise ValueError("lazy_submit is for thread-bound ports only")
        natives = backends.choose(backend)
        lifetime.close_graves()
        numbers.read(natives[0].lib)
        self._concurrency = concurrency or system.usable_processors()
        self._closing = threading.RLock()
        self._owner_thread = threading.current_thread() if thread_bound else None
        self._owner_native_id = threading.get_native_id()
        #: What the owner has yet to do for keys and buffers that ended in other threads.
        self._orphans: deque[Callable[[], object]] = deque()
        #: The registered buffers that the engine may know (registered.py).
        self._regions: dict[int, Region] = {}
        for native in natives:
            self._lib = native.lib  # for refusals
            try:
                port = _create(self, native, thread_bound=thread_bound, lazy_submit=lazy_submit)
            except OSError:  # too little memory may be locked, for example
                if native is natives[-1]:
                    raise
            else:
                break
        self._backend = native.name
        try:
            self._open_engine(native, port, get_ident() if thread_bound else 0)
            self._open_queue()
            self._open_unqueued()
            lifetime.enter(self)
        except BaseException:
            native.lib.portio_port_close(port, 0)
            raise
        self._closed = False

    # ---- what it is ----

    @property
    def backend(self) -> str:
        """The name of the engine that it uses."""
        return self._backend

    @property
    def concurrency(self) -> int:
        """How many threads may run at once; never 0."""
        return self._concurrency

    @property
    def thread_bound(self) -> bool:
        """Whether it is used from its creating thread alone."""
        return self._owner != 0

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed

    def fileno(self) -> int:
        """A descriptor that is readable whenever a packet can be taken.

        For event loops: watch it for reading, and take packets with a time-out of
        0 until there are none.  Do not read from it and do not close it.  It is the
        same for the life of the port.

        Raises `PortClosedError`, `NotSupportedError` where there is none (on
        Windows; see `handle`), RuntimeError in another thread than the owner of a
        thread-bound port and in a forked child.
        """
        descriptor = self._lib.portio_fileno(self._native)
        if descriptor < 0:
            raise self._refusal(descriptor, "fileno")
        self._speak_of_all()
        return descriptor

    def _speak_of_all(self) -> None:
        """From now on no packet waits where `fileno` or `handle` cannot tell of it."""
        self._batch = 1
        self._wakes_others = True
        if left := self._left:
            self._left = 0
            self._rescue([], self._kept[-left:])

    @property
    def handle(self) -> int:
        """The HANDLE of the kernel's port, on Windows.

        For event loops that wait for HANDLEs: it is signalled while a packet is
        queued.  Do not take packets from it and do not close it.

        Raises `PortClosedError`, `NotSupportedError` where there is none (use
        `fileno`), RuntimeError in another thread than the owner of a thread-bound
        port and in a forked child.
        """
        handle = self._lib.portio_system_handle(self._native)
        if handle < 0:
            raise self._refusal(handle, "handle")
        self._speak_of_all()
        return handle

    # ---- handles ----

    def associate(self, handle: HandleLike, data: object = None) -> CompletionKey:
        """Makes `handle` a handle of this port, and returns its key.

        `handle` is a socket, what `portio.open` or `portio.pipe` gave, a descriptor,
        or an object with ``fileno()``.  From now on it is used through operations;
        it stays open until the key or the program closes it.  The key holds
        `handle`, and gives it back, open, when it is dropped.  `data` comes with
        every completion, as ``completion.key.data``.

        Raises TypeError and ValueError for what is no open handle; OSError (EBUSY)
        when it belongs to a port already, this one or another; other OSErrors when
        the system refuses it; `PortClosedError`; RuntimeError in another thread than
        the owner of a thread-bound port and in a forked child.
        """
        descriptor = descriptor_of(handle)
        if self._orphans:
            self._carry_out_orphans()
        key: CompletionKey | None = None
        opened = self._ffi.new("portio_handle *")
        with registry.lock:
            try:
                if (
                    descriptor in registry.entries
                    or self._lib.portio_handle_open(self._native, descriptor, opened)
                    or (identity := identity_of(opened)) in registry.sockets
                ):
                    identity = self._open_by_the_books(handle, descriptor, opened)
                key = CompletionKey.__new__(CompletionKey)  # `attach` does what `__init__` would
                key.attach(self, handle, data, descriptor, identity, opened)
                registry.add(descriptor, identity, key)
            except BaseException:
                if opened.id:
                    if key is not None:
                        key.detach()
                        registry.remove(descriptor, key)
                    self._forget(opened.id)
                raise
        if isinstance(handle, Handle):
            handle.attach(key)
        return key

    def _open_by_the_books(
        self, handle: HandleLike, descriptor: int, opened: CData
    ) -> Identity | None:
        """Has the engine open a handle that the registry knows of, or that it has refused.

        `opened` is what the engine has opened already, before it was seen that this is a
        duplicate: that is undone, because first of all its holder has to be looked at.
        """
        if opened.id:
            self._forget(opened.id)
            opened.id = 0
        self._check_thread()
        holder, stale = registry.check(descriptor, identify(descriptor))
        for lost in stale:
            lost.lose()
        if holder is not None and not system.KERNEL_KEEPS_OWNERS:
            raise _has_owner(handle)
        refused = self._lib.portio_handle_open(self._native, descriptor, opened)
        if refused:
            error = self._refusal(refused, f"associating {handle!r}")
            if isinstance(error, OSError) and error.errno == errno.EBUSY:
                error = _has_owner(handle)
            raise error
        if holder is not None:  # the number was closed behind its back, and is a new one's
            holder.lose()
        return identity_of(opened)

    def disassociate(self, key: CompletionKey) -> None:
        """Gives the handle of `key` back to the program, open; the key becomes a free one.

        Raises OSError (EBUSY) while operations are pending on it; TypeError and
        ValueError for what is no key of this port; `NotSupportedError` where the
        system cannot do it; `PortClosedError`; RuntimeError in another thread than
        the owner of a thread-bound port and in a forked child.
        """
        if not isinstance(key, CompletionKey):
            raise TypeError(f"a CompletionKey is required, not {type(key).__name__!r}")
        with registry.lock:
            if key.closed or key.port is not self:
                raise ValueError(f"{key!r} is no key of this port, or closed")
            handle = key.handle  # noqa: F841  (there is one from now on, who has the number)
            refused = self._lib.portio_handle_release(self._native, key._id)
            if refused == self._lib.PORTIO_UNSUPPORTED:
                raise self._refusal(refused, f"disassociating {key!r}")
            if refused:
                raise self._refusal(refused, repr(key))
            registry.remove(key._descriptor, key)
            key.detach()

    def blocking(self) -> Blocking:
        """Says that this thread is about to block: ``with port.blocking(): …``.

        Another thread may take packets in its place meanwhile.  Does nothing in a
        thread that has no packet, on a thread-bound port, and on Windows, where the
        system notices by itself.

        Entering raises RuntimeError in another thread than the owner of a
        thread-bound port and in a forked child.
        """
        return Blocking(self)

    # ---- the end ----

    def close(self) -> None:
        """Closes the port; closing again does nothing.

        Cancels and drains every operation, wakes every thread that waits (they
        raise `PortClosedError`), and returns when the system holds no pointer into
        this process any more.  Packets that were not taken are gone; sockets that
        were accepted, but not taken, are closed.  Handles stay open: they are the
        program's again.

        Raises RuntimeError in a forked child, and for a thread-bound port in
        another thread while its owner lives.
        """
        if self._forked:
            raise_forked()
        with self._closing:
            if not self._closed:
                owner = self._owner_thread
                ended = owner is not None and lifetime.has_ended(owner, self._owner_native_id)
                if system.KERNEL_KEEPS_OWNERS:
                    # The port gives back what is its own, and asks by the number.
                    for lost in registry.lost_by(self):
                        self._lib.portio_handle_abandon(self._native, lost._id)
                refused = self._lib.portio_port_close(self._native, int(ended))
                if refused:
                    raise self._refusal(refused, "closing the port")
                self._closed = True
            self._drop_packets()  # again, if a signal has interrupted it before
            self._end_orphans()

    def __enter__(self) -> Self:
        if self._forked:
            raise_forked()
        if self._closed:
            raise errors.port_closed()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._forked:
            self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or self._forked:
            return
        try:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        finally:  # a warning may be an exception
            if not self._close_if_allowed():
                lifetime.bury(self)

    def __repr__(self) -> str:
        kind = " thread-bound" if self.thread_bound else f" concurrency={self._concurrency}"
        state = " closed" if self._closed else ""
        return f"<portio.Port {self._backend}{kind}{state}>"

    # ---- for keys and lifetime ----

    def _close_if_allowed(self) -> bool:
        """Closes the port if this thread may; whether it is closed now."""
        if self._forked:
            return True
        try:
            self.close()
        except (RuntimeError, OSError, ValueError, MemoryError):
            return False
        return True

    def _disown(self) -> None:
        """Leaves the port to the parent: the caller is a forked child."""
        self._disown_engine()
        self._open_queue()

    def _forget(self, handle: int) -> None:
        """A key was collected: its handle goes back to the program.  Raises nothing."""
        if self._forked or self._closed:
            return
        lib = self._lib
        refused = lib.portio_handle_release(self._native, handle)
        if refused == lib.PORTIO_WRONG_THREAD:
            self._orphans.append(partial(lib.portio_handle_release, self._native, handle))
        elif refused == lib.PORTIO_UNSUPPORTED:  # it stays this port's, but open, and nobody's key
            lib.portio_handle_abandon(self._native, handle)

    def _abandon(self, handle: int) -> None:
        """The descriptor behind a handle is not ours to close: ends the operations."""
        if self._forked or self._closed:
            return
        lib = self._lib
        if lib.portio_handle_abandon(self._native, handle) == lib.PORTIO_WRONG_THREAD:
            # Cancelling is all that other threads may do; the owner does the rest.
            self._orphans.append(partial(lib.portio_handle_abandon, self._native, handle))
            for token, entry in self._pending.copy().items():
                key = entry[1] if entry[0] is not None else None
                if key is not None and key._id == handle:
                    lib.portio_cancel(self._native, token)

    def _carry_out_orphans(self) -> None:
        self._check_thread()
        self._end_orphans()

    def _end_orphans(self) -> None:
        """Each goes when it is done: a signal handler may raise, and it is done again."""
        orphans = self._orphans
        while orphans:
            orphan = orphans[0]
            orphan()
            if orphans and orphans[0] is orphan:  # else a handler was here meanwhile
                orphans.popleft()


accelerator.install(Port, "associate")
accelerator.give(
    *(socket.socket, socket.SocketType.detach, socket.close),
    *(CompletionKey, Outcome, registry, Refused, adopt),
)


class Blocking:
    """What `Port.blocking` gives: a context manager, for one use at a time."""

    __slots__ = ("_had_place", "_port")

    def __init__(self, port: Port) -> None:
        self._port = port
        self._had_place = 0

    def __enter__(self) -> None:
        port = self._port
        result = port._lib.portio_blocking(port._native, 1)
        if result < 0:
            raise port._refusal(result, "blocking")
        self._had_place = result

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._had_place > 0:
            self._port._lib.portio_blocking(self._port._native, 0)


def _has_owner(handle: HandleLike) -> OSError:
    return OSError(
        errno.EBUSY,
        f"{handle!r} belongs to a port already; close or disassociate its key first",
    )


def _create(port: Port, native: Native, *, thread_bound: bool, lazy_submit: bool) -> CData:
    """A new port of the engine."""
    options = native.ffi.new("portio_options *")
    options.concurrency = port.concurrency
    options.thread_bound = thread_bound
    options.lazy_submit = lazy_submit
    options.main_thread = threading.main_thread().ident or 0
    variable = switches.VARIABLES.get(native.name)
    if variable is not None and (text := os.environ.get(variable)):
        switched = switches.parse(text, backends.feature_names(native), variable)
        options.disabled_features = switched.disabled_features
        options.submission_entries = switched.submission_entries
        options.completion_entries = switched.completion_entries
    created = native.ffi.new("portio_port **")
    refused = native.lib.portio_port_create(options, created)
    if refused:
        raise port._refusal(refused, f"creating a port ({native.name})")
    return created[0]
