"""One port of an engine, as Python holds it: functions, tokens, refusals.

`Engine` is the ground that a `Port` stands on: it knows how to talk through the
door (native.cdef.txt), and keeps the books about what is under way there.

Tokens.  A token names one life of one slot of the engine: the slot's number in
the low 24 bits, the life's number above.  `_free` holds the next token of every
idle slot; it is used as a stack, so that a busy slot stays in the cache.
`_pending` maps the token of everything that is under way to its entry.  An entry
is made before the engine hears of the token, because another thread may take the
packet before `submit` has returned (contract O4); or, by the accelerator, right after,
where no other thread can have had the GIL meanwhile.

What keeps it right without a lock.  Lists and dicts, and the accelerator's books that
stand for them, are atomic: two threads never pop the same token, and of all that try to
delete an entry exactly one succeeds.
That deletion is the *claim* of a packet; only who has made it touches the
operation.

Fork.  In a child the functions are replaced by ones that raise, so that nothing
that belongs to the parent is ever touched, and no check costs time elsewhere.
"""

from __future__ import annotations

import errno
import threading
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from portio import accelerator, errors
from portio.completion import Completion
from portio.keepers import keep

if TYPE_CHECKING:
    from collections.abc import Callable

    from portio.backends.native import CData, ForeignInterface, Library, Native
    from portio.operations.base import Entry

__all__ = ["GENERATION", "NUDGE", "TOKENS", "Engine", "Posted", "raise_forked"]

GENERATION = 1 << 24  # one life of a slot
TOKENS = 2**63 - 1  # bit 63 of a token is clear; after 2**39 lives a slot starts again
MOST_SLOTS = 1 << 24
FIRST_SLOTS = 64

#: What `_pending` has for a posted packet; without a completion it is a nudge
#: (packets.py).
Posted: TypeAlias = "tuple[None, Completion[Any] | None]"
NUDGE: Posted = (None, None)


class Engine(accelerator.PortFields):
    """An open port of an engine."""

    __slots__ = (
        "__weakref__",
        "_c_get",
        "_c_post",
        "_c_submit_one",
        "_chars",
        "_ffi",
        "_forked",
        "_from_buffer",
        "_growing",
        "_keep_native",
        "_lib",
        "_null",
        "_slots",
    )

    _native: CData
    _ffi: ForeignInterface
    _lib: Library
    _owner: int  # the identity of a thread-bound port's thread; else 0
    _forked: bool  # this is a child, and the port is the parent's

    # What the hot path needs, at hand.
    _c_get: Callable[[CData, CData, int, int], int]
    _c_post: Callable[[CData, int], int]
    _c_submit_one: Callable[[CData, int, int, int, int, CData, int, int], int]
    _from_buffer: Callable[..., CData]
    _chars: CData  # the type char[]
    _null: CData

    _free: list[int]
    _pending: dict[int, Entry | Posted]

    def _open_engine(self, native: Native, port: CData, owner: int) -> None:
        """`port` is a new portio_port of the engine `native`, whose memory is ours."""
        self._native = port
        self._keeper, self._keep_native = keep(native.ffi, port, native.lib.portio_port_free)
        self._ffi, self._lib = native.ffi, native.lib
        self._owner = owner
        self._c_get = native.lib.portio_get
        self._c_post = native.lib.portio_post
        self._c_submit_one = native.lib.portio_submit_one
        self._from_buffer = native.ffi.from_buffer
        self._chars = native.ffi.typeof("char[]")
        self._null = native.ffi.NULL
        self._pending = accelerator.Book()
        self._free = accelerator.Tokens()
        self._slots = 1  # slot 0 is the engine's
        self._growing = threading.RLock()
        accelerator.connect(self, native, port, Completion)

    # ---- tokens ----

    def _new_token(self) -> int:
        try:
            return self._free.pop()
        except IndexError:
            return self._grow()

    def _grow(self) -> int:
        """Makes more slots; the first of them is the caller's."""
        with self._growing:
            while True:
                try:
                    return self._free.pop()
                except IndexError:
                    first = self._slots
                slots = max(FIRST_SLOTS, first * 2)
                if slots > MOST_SLOTS:
                    raise OSError(
                        errno.ENOBUFS, f"more than {MOST_SLOTS} operations and packets are pending"
                    )
                refused = self._lib.portio_reserve(self._native, slots)
                if refused:
                    raise self._refusal(refused)
                fresh = [GENERATION | slot for slot in range(slots - 1, first - 1, -1)]
                if self._slots == first:  # else a signal handler came here meanwhile
                    self._slots = slots
                    self._free += fresh

    def _withdraw(self, token: int) -> None:
        """The engine has refused the token: it is as if it had not been taken."""
        self._pending.pop(token, None)
        self._free.append(token)

    # ---- who may ----

    def _check_owner(self) -> None:
        if self._owner and get_ident() != self._owner:
            raise _wrong_thread()

    def _check_thread(self) -> None:
        """Raises RuntimeError where only the owner may go on, and in a forked child."""
        if self._forked:
            raise_forked()
        self._check_owner()

    def _disown_engine(self) -> None:
        """Cuts the way to the engine: the caller is a forked child."""
        self._forked = True
        accelerator.disconnect(self)
        self._keep_native()
        self._lib = self._free = _FORKED
        self._c_get = self._c_post = self._c_submit_one = raise_forked

    # ---- refusals ----

    def _refusal(self, code: int, what: str = "") -> Exception:
        """The exception for a negative result of the engine."""
        lib = self._lib
        if code <= lib.PORTIO_SYSTEM:
            return errors.from_system(lib.PORTIO_SYSTEM - code, what)
        if code == lib.PORTIO_CLOSED:
            return errors.port_closed()
        if code == lib.PORTIO_WRONG_THREAD:
            return _wrong_thread()
        if code == lib.PORTIO_NO_HANDLE:
            return ValueError(f"{what or 'the key'} is closed")
        if code == lib.PORTIO_BUSY:
            return OSError(errno.EBUSY, f"{what or 'the handle'} has operations pending")
        if code == lib.PORTIO_NO_MEMORY:
            return MemoryError(what)
        if code == lib.PORTIO_NOT_OVERLAPPED:
            return OSError(
                errno.EINVAL,
                f"{what or 'the handle'}: it was not opened for overlapped I/O, which a completion "
                "port needs; open files with portio.open and pipes with portio.pipe",
            )
        if code == lib.PORTIO_UNSUPPORTED:
            return errors.NotSupportedError(
                errno.ENOTSUP, f"{what or 'the operation'} is not supported on this system"
            )
        return ValueError(f"{what or 'the request'} was refused by the engine ({code})")


def _wrong_thread() -> RuntimeError:
    return RuntimeError(
        "the port is thread-bound: only the thread that created it may do this "
        "(post and cancel are open to all)"
    )


def raise_forked(*_: Any) -> NoReturn:
    """Stands in a forked child for the functions of the engine."""
    raise RuntimeError("the port belongs to the parent process; create a new one after the fork")


class _Forked:
    """Stands in a forked child for the engine."""

    def __getattr__(self, name: str) -> NoReturn:
        raise_forked()


_FORKED: Any = _Forked()
