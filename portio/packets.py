"""The packets of a port: tokens out, records in, completions to the program.

`PacketQueue` is the part of a port that a packet passes on its way: a token is
taken when an operation starts or a packet is posted, the engine sends a record
with that token, and the record becomes a `Completion` when it leaves the port.
`Port` adds handles, submission and closing.

Tokens.  A token names one life of one slot of the engine: the slot's number in
the low 24 bits, the life's number above.  `_free` holds the next token of every
idle slot; it is used as a stack, so that a busy slot stays in the cache.
`_pending` maps the token of everything that is under way to its operation, or to
the completion that was made when the packet was posted.

What keeps it right without a lock.  Lists and dicts are atomic: two threads never
pop the same token, and of all that try to `del _pending[token]` exactly one
succeeds.  That deletion is the *claim* of a packet; only who has made it touches
the operation.  An entry is made before the engine hears of the token, because
another thread may take the packet before `submit` has returned (contract O4).

Ctrl-C (contract P8).  A signal handler runs, and may raise, after any call and at
the end of a loop's round, so a packet that has left the engine must never be
referred to by a local variable alone across a call.  The rules:

- Between the claim and the entry in the list of results there is no call, only
  stores (that is why the token is given back with `+=`, and why completions have
  no __init__).
- What comes before the claim may be carried out again for the same record.
- Every way out by an exception leads through `_rescue`, which keeps completions
  and records that did not reach the caller.  They are delivered first by the
  next call.  The engine ends the records of an interrupted call with a zero
  token, so they are found in the array even if the call's result is lost.
- Other threads, and who watches `fileno`, learn of rescued packets by a *nudge*,
  a posted packet that is never delivered.

What remains: a signal that arrives after Python has looked for signals the last
time, and before the thread sleeps in the system, a few hundred nanoseconds later,
is only noticed when something else ends the sleep.  Every blocking call of Python
has this window (a second Ctrl-C ends the wait); a program that must not have it
waits for `signal.set_wakeup_fd` and `Port.fileno` together, as event loops do.
There is no polling to hide it.

A thread-bound port takes a batch when one packet is asked for and keeps the rest
as records (`_kept`, of which `_left` numbers are not used yet), so operations stay
pending and pinned until their own turn.  It stops to do so when `fileno` is used:
that descriptor speaks of the engine's queue only.  A shared port never takes more
than it was asked for, since other threads wait for the rest.
"""

from __future__ import annotations

import errno
import socket
import threading
import weakref
from operator import index
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from portio import errors
from portio.completion import Completion
from portio.keys import CompletionKey
from portio.operations.sockets import Accept
from portio.timeouts import FOREVER, Deadline, from_optional, to_nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from portio.backends.native import CData, ForeignInterface, Library, Native
    from portio.operations.base import Operation

__all__ = ["PacketQueue"]

T = TypeVar("T")

Completions: TypeAlias = "list[Completion[Any]]"

GENERATION = 1 << 24  # one life of a slot
TOKENS = 2**63 - 1  # bit 63 of a token is clear; after 2**39 lives a slot starts again
MOST_SLOTS = 1 << 24
FIRST_SLOTS = 64

ARRAY = 256  # records that one call of the engine can give
BATCH = 64  # packets that a thread-bound port takes when it is asked for one
NOTHING: list[int] = []

NUDGE: Completion[Any] = Completion()
NUDGE.operation = NUDGE.key = None
NUDGE.nbytes = NUDGE._status = 0
NUDGE._value = None


class PacketQueue:
    """A port as far as packets are concerned."""

    __slots__ = (
        "__weakref__",
        "_arrays",
        "_batch",
        "_c_get",
        "_c_post",
        "_c_submit_one",
        "_chars",
        "_dropped_accepts",
        "_ffi",
        "_free",
        "_from_buffer",
        "_growing",
        "_kept",
        "_left",
        "_lib",
        "_native",
        "_null",
        "_owner",
        "_pending",
        "_rescue_lock",
        "_rescued",
        "_slots",
        "_stray",
        "_unqueued",
        "_waits",
        "_wakes_others",
    )

    # The engine.  In a forked child `_lib` and the functions raise (lifetime.py).
    _native: CData
    _ffi: ForeignInterface
    _lib: Library
    _c_get: Callable[[CData, CData, int, int], int]
    _c_post: Callable[[CData, int], int]
    _c_submit_one: Callable[[CData, int, int, int, int, CData, int, int], int]
    _from_buffer: Callable[..., CData]
    _chars: CData  # the type char[]
    _null: CData
    _unqueued: int  # PORTIO_UNQUEUED

    _owner: int  # the identity of a thread-bound port's thread; else 0

    def _open_queue(self, native: Native, port: CData, owner: int) -> None:
        self._native = port
        self._ffi, self._lib = native.ffi, native.lib
        self._c_get = native.lib.portio_get
        self._c_post = native.lib.portio_post
        self._c_submit_one = native.lib.portio_submit_one
        self._from_buffer = native.ffi.from_buffer
        self._chars = native.ffi.typeof("char[]")
        self._null = native.ffi.NULL
        self._unqueued = native.lib.PORTIO_UNQUEUED
        self._owner = owner

        self._pending: dict[int, Operation[Any] | Completion[Any]] = {}
        self._free: list[int] = []
        self._slots = 1  # slot 0 is the engine's
        self._growing = threading.RLock()
        #: Pairs of a record array and its view as int64, for whoever needs one.
        self._arrays: list[tuple[CData, memoryview]] = []
        self._batch = BATCH if owner else 1
        self._kept: list[int] = NOTHING
        self._left = 0
        #: Pairs of completions and of records that did not reach a caller.
        self._rescued: list[tuple[Completions, list[int]]] = []
        self._rescue_lock = threading.RLock()
        self._wakes_others = not owner  # rescued packets need a nudge
        #: Unqueued operations: who waits for one that another thread has taken.
        self._waits = threading.Condition()
        self._stray: dict[int, tuple[int, int]] = {}
        #: Tokens of the accepts that closing has dropped.
        self._dropped_accepts: set[int] = set()

    # ---- taking packets ----

    def get(self, timeout: float | None = None) -> Completion[Any] | None:
        """Takes the next packet; None when `timeout` seconds have passed without one.

        None waits for ever, 0 does not wait; it never returns early.  A KeyboardInterrupt
        loses no packet.

        Raises `PortClosedError` when the port is closed, also while it waits;
        RuntimeError in another thread than the owner of a thread-bound port and in
        a forked child; TypeError or ValueError for a bad time-out.
        """
        nanoseconds = FOREVER if timeout is None else to_nanoseconds(timeout)
        out: Completions = []
        try:
            if self._rescued:
                self._take_rescued(out, 1)
            elif self._left:
                self._take_kept(out, 1)
            if not out:
                self._receive(out, self._batch, True, nanoseconds)
        except BaseException:
            self._rescue(out, NOTHING)
            raise
        return out[0] if out else None

    def get_many(self, limit: int = ARRAY, timeout: float | None = None) -> list[Completion[Any]]:
        """Takes all packets that are queued, at most `limit`, oldest first.

        Waits for the first as `get` does; the list is empty only when `timeout`
        seconds have passed.  Raises what `get` raises, and ValueError for a limit
        below 1.
        """
        limit = index(limit)
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        nanoseconds = FOREVER if timeout is None else to_nanoseconds(timeout)
        out: Completions = []
        try:
            if self._rescued:
                self._take_rescued(out, limit)
            if self._left:
                self._take_kept(out, limit)
            self._receive_many(out, limit, nanoseconds)
        except BaseException:
            self._rescue(out, NOTHING)
            raise
        return out

    def __iter__(self) -> Iterator[Completion[Any]]:
        """Iterates over the packets, as `get` takes them, until the port is closed."""
        return self

    def __next__(self) -> Completion[Any]:
        try:
            completion = self.get()
        except errors.PortClosedError:
            raise StopIteration from None
        assert completion is not None, "a wait without end ends with a packet"
        return completion

    def _receive_many(self, out: Completions, limit: int, nanoseconds: int) -> None:
        """Fills `out` up to `limit`; waits only while it is empty."""
        while (room := limit - len(out)) > 0:
            had = len(out)
            most = room if room < ARRAY else ARRAY
            try:
                self._receive(out, most, False, 0 if out else nanoseconds)
            except errors.PortClosedError:
                if not out:
                    raise
                return
            if len(out) - had < most:
                return

    def _receive(self, out: Completions, limit: int, one: bool, nanoseconds: int) -> None:
        """Asks the engine for at most `limit` packets, and waits until there is one.

        Appends them to `out`; with `one` only the first, the rest is kept.
        """
        deadline = Deadline(nanoseconds) if nanoseconds > 0 else None
        while True:
            try:
                array = self._arrays.pop()
            except IndexError:
                array = self._make_array()
            records, view = array
            taken: list[int] | None = None  # None: what there is, is in the array
            try:
                count = self._c_get(self._native, records, limit, nanoseconds)
                if count == 1:
                    self._take(out, view[0], view[1], view[2])
                elif count > 1:
                    taken = view[: 3 * count].tolist()
                    if one:
                        self._take(out, taken[0], taken[1], taken[2])
                        if self._left:  # a signal handler was here, and kept some
                            self._rescue([], taken[3:])
                        else:
                            self._kept = taken
                            self._left = 3 * count - 3
                    else:
                        for at in range(0, 3 * count, 3):
                            self._take(out, taken[at], taken[at + 1], taken[at + 2])
                elif count < 0 and count != self._lib.PORTIO_INTERRUPTED:
                    raise self._refusal(count)
                taken = NOTHING
                self._arrays.append(array)
            except BaseException:
                self._rescue([], _records(view, limit) if taken is None else taken)
                raise
            if out or count == 0:
                return
            # A signal whose handler raised nothing, or a nudge.
            if deadline is not None:
                nanoseconds = deadline.left()
            if self._rescued:
                self._take_rescued(out, limit)
                if out:
                    return

    def _take(self, out: Completions, token: int, nbytes: int, status: int) -> None:
        """Turns a record into a completion, appended to `out`.

        Does nothing when somebody else has claimed the packet.  See the module's
        text for the order of its steps.
        """
        try:
            entry = self._pending[token]
        except KeyError:
            self._close_dropped(token, nbytes, status)
            return
        moved = nbytes
        if not entry._settles:
            value: Any = nbytes
        elif entry.__class__ is Completion:
            self._take_posted(out, token, entry)
            return
        else:
            value = entry._settle(nbytes, status)  # type: ignore[union-attr]
            if not entry._moves:  # type: ignore[union-attr]
                moved = 0
        completion: Completion[Any] = Completion()
        completion.operation = entry  # type: ignore[assignment]
        completion.key = entry.key
        completion.nbytes = moved
        completion._status = status
        completion._value = value
        if status:
            completion._more = bool(status >> 32 & self._lib.PORTIO_MORE)
        free = self._free
        try:
            del self._pending[token]  # the claim
        except KeyError:
            self._close_dropped(token, nbytes, status)
            return
        entry._value = value
        entry._nbytes = moved  # type: ignore[union-attr]
        entry._status = status
        entry._pin = None  # type: ignore[union-attr]
        entry._token = 0  # type: ignore[union-attr]
        free += ((token + GENERATION) & TOKENS,)
        out.append(completion)

    def _take_posted(self, out: Completions, token: int, completion: Any) -> None:
        free = self._free
        try:
            del self._pending[token]
        except KeyError:
            return
        free += ((token + GENERATION) & TOKENS,)
        if completion is not NUDGE:
            out.append(completion)

    def _take_kept(self, out: Completions, limit: int) -> None:
        """Takes from the batch that a thread-bound port has kept."""
        self._check_owner()
        while self._left and len(out) < limit:
            left = self._left
            if not left:
                return
            kept = self._kept
            token, nbytes, status = kept[-left], kept[1 - left], kept[2 - left]
            self._left = left - 3
            try:
                self._take(out, token, nbytes, status)
            except BaseException:
                self._rescue([], [token, nbytes, status])
                raise

    def _make_array(self) -> tuple[CData, memoryview]:
        records = self._ffi.new("portio_completion[]", ARRAY)
        return records, memoryview(self._ffi.buffer(records)).cast("B").cast("q")

    def _check_owner(self) -> None:
        if self._owner and get_ident() != self._owner:
            raise _wrong_thread()

    # ---- packets that did not reach their caller ----

    def _rescue(self, done: Completions, records: list[int]) -> None:
        """Keeps what an exception would have lost; `done` is empty afterwards.

        Whatever the caller has delivered or another thread has claimed by then is
        passed over when the records are looked at again.
        """
        if not done and not records:
            return
        item = (done[:], records)
        self._rescued[0:0] = (item,)
        del done[:]
        if self._wakes_others:
            for _ in range(len(item[0]) + len(records) // 3):
                self._nudge()

    def _take_rescued(self, out: Completions, limit: int) -> None:
        self._check_owner()
        with self._rescue_lock:
            while self._rescued and len(out) < limit:
                if not self._rescued:
                    return
                done, records = self._rescued[0]
                if done:
                    out += (done[0],)
                    del done[0]
                elif records:
                    token, nbytes, status = records[:3]
                    del records[:3]
                    try:
                        self._take(out, token, nbytes, status)
                    except BaseException:
                        records[0:0] = (token, nbytes, status)
                        raise
                else:
                    del self._rescued[0]

    def _nudge(self) -> None:
        """Lets one waiting thread look for rescued packets."""
        try:
            token = self._new_token()
            self._pending[token] = NUDGE
            if self._c_post(self._native, token) != 0:
                self._withdraw(token)
        except (OSError, MemoryError, RuntimeError):
            pass  # the next call finds them without it

    # ---- posting ----

    def post(
        self, key: CompletionKey | None = None, nbytes: int = 0, payload: object = None
    ) -> None:
        """Queues a packet, which arrives with exactly these three values.

        `key` is None, a free key, or a key of this port; `nbytes` an int from 0 to
        2**63 - 1.  Any thread may post, also to a thread-bound port.

        Raises TypeError and ValueError for other values, `PortClosedError`,
        MemoryError or OSError (ENOBUFS) when no packet more can be queued, and
        RuntimeError in a forked child.  Nothing is queued then.
        """
        if key is not None:
            if not isinstance(key, CompletionKey):
                raise TypeError(f"key must be a CompletionKey or None, not {type(key).__name__!r}")
            if not key.serves(self):
                raise ValueError(f"{key!r} is closed or of another port")
        if not isinstance(nbytes, int):
            raise TypeError(f"nbytes must be an int, not {type(nbytes).__name__!r}")
        if not 0 <= nbytes <= TOKENS:
            raise ValueError(f"nbytes must be from 0 to 2**63 - 1, not {nbytes}")
        completion: Completion[Any] = Completion()
        completion.operation = None
        completion.key = key
        completion.nbytes = nbytes
        completion._status = 0
        completion._value = payload
        token = self._new_token()
        self._pending[token] = completion
        refused = self._c_post(self._native, token)
        if refused:
            self._withdraw(token)
            raise self._refusal(refused)

    # ---- unqueued operations ----

    def _await(self, operation: Operation[T], timeout: float | None) -> Completion[T] | None:
        """Operation.wait.

        Exactly one thread gets the record from the engine; it stores the outcome
        in the operation and wakes the others through `_waits`.
        """
        nanoseconds = from_optional(timeout)
        deadline = Deadline(nanoseconds)
        lib = self._lib
        while token := operation._token:
            record = self._ffi.new("portio_completion *")
            try:
                code = lib.portio_wait(self._native, token, record, nanoseconds)
                if code == 1:
                    return self._store(operation, token, record.nbytes, record.status)
            except BaseException:
                self._leave_to_others(token, record)
                raise
            if code == 0:
                return None
            if code == lib.PORTIO_INVALID:
                # Not started yet, or another thread has it: either tells us.
                if not self._wait_for_others(operation, token, deadline):
                    return None
            elif code != lib.PORTIO_INTERRUPTED:
                raise self._refusal(code)
            nanoseconds = deadline.left()
        return self._stored(operation)

    def _store(
        self, operation: Operation[T], token: int, nbytes: int, status: int
    ) -> Completion[T]:
        out: Completions = []
        with self._waits:
            self._take(out, token, nbytes, status)
            if out:
                operation._last = weakref.ref(out[0])
            self._waits.notify_all()
        return out[0] if out else self._stored(operation)

    def _stored(self, operation: Operation[T]) -> Completion[T]:
        """The completion that `operation` has had; made again if nobody has it."""
        with self._waits:
            last = operation._last
            completion = last() if last is not None else None
            if completion is not None:
                return completion
            try:
                status = operation._status
            except AttributeError:
                raise errors.port_closed() from None
            completion = Completion()
            completion.operation = operation
            completion.key = operation.key
            completion.nbytes = operation._nbytes
            completion._status = status
            completion._value = operation._value
            completion._more = False
            operation._last = weakref.ref(completion)
            return completion

    def _leave_to_others(self, token: int, record: CData) -> None:
        """An exception ended a wait: what it had is for the next."""
        with self._waits:
            if record.token == token and token in self._pending:
                self._stray[token] = (record.nbytes, record.status)
            self._waits.notify_all()

    def _wait_for_others(self, operation: Operation[T], token: int, deadline: Deadline) -> bool:
        """Waits for news of an operation that the engine does not have; False: time-out."""
        with self._waits:
            if operation._token != token:
                return True
            if token in self._stray:
                self._store(operation, token, *self._stray.pop(token))
                return True
            record = self._ffi.new("portio_completion *")
            code = self._lib.portio_wait(self._native, token, record, 0)
            if code == 1:
                self._store(operation, token, record.nbytes, record.status)
            if code != self._lib.PORTIO_INVALID:
                return True
            left = deadline.left()
            return self._waits.wait(None if left < 0 else left / 1e9) or deadline.left() > 0

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

    # ---- the end ----

    def _drop_packets(self) -> None:
        """The port is closed: whatever has not been taken is gone.

        Another thread may be just about to take a record that it has; it claims it,
        or we do.  Accepted sockets that nobody will see are closed.
        """
        entries = self._pending.copy()
        self._dropped_accepts.update(
            token for token, entry in entries.items() if isinstance(entry, Accept)
        )
        while True:
            try:
                _, entry = self._pending.popitem()
            except KeyError:
                break
            if not isinstance(entry, Completion):
                entry._drop()
        left, self._left = self._left, 0
        records = self._kept[-left:] if left else []
        with self._rescue_lock:
            for _, rescued in self._rescued:
                records += rescued
            self._rescued.clear()
        for at in range(0, len(records), 3):
            self._close_dropped(*records[at : at + 3])
        with self._waits:
            self._waits.notify_all()

    def _close_dropped(self, token: int, nbytes: int, status: int) -> None:
        """Closes the socket of an accept that the closing port has dropped."""
        try:
            self._dropped_accepts.remove(token)
        except KeyError:
            return
        if not status:
            socket.close(nbytes)

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
        if code == lib.PORTIO_UNSUPPORTED:
            return errors.NotSupportedError(
                errno.ENOTSUP, f"{what or 'the operation'} is not supported on this system"
            )
        return ValueError(f"{what or 'the request'} was refused by the engine ({code})")


def _records(view: memoryview, limit: int) -> list[int]:
    """The records of an interrupted call, up to the one that ends them."""
    numbers: list[int] = view[: 3 * limit].tolist()
    for at in range(0, len(numbers), 3):
        if numbers[at] == 0:
            return numbers[:at]
    return numbers


def _wrong_thread() -> RuntimeError:
    return RuntimeError(
        "the port is thread-bound: only the thread that created it may do this "
        "(post and cancel are open to all)"
    )
