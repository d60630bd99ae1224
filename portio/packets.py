"""The packets of a port: records in, completions to the program.

`PacketQueue` is the part of a port that a packet passes on its way out: the
engine sends a record with its token, and the record becomes a `Completion` when
it leaves the port.  It also makes the packets that a program posts.

Ctrl-C (contract P8).  A signal handler runs, and may raise, after any call and at
the end of a loop's round, so a packet that has left the engine must never be
referred to by a local variable alone across a call.  The rules:

- Between the claim of a packet (engine.py) and its entry in the list of results
  there is no call, only stores.
- What comes before the claim may be carried out again for the same record.
- A step of a `for` statement is not a call: what it gives is in the loop's variable before
  a handler runs.  So an iteration is made in C (accelerator/take.c), as far as packets are there.
- Every way out by an exception leads through `_rescue` (rescue.py), which keeps
  completions and records that did not reach the caller.  They are delivered first by the
  next call.  The engine ends the records of an interrupted call with a zero
  token, so they are found in the array even if the call's result is lost.
- A `while` with a condition does not stand alone in a `try` or a `with`: from
  CPython 3.12 on, the jump back of such a loop is not part of the statement
  around it, so what is raised there would pass by its handler, or leave a lock
  locked.
- Other threads, and who watches `fileno`, learn of rescued packets by a *nudge*,
  a posted packet that is never delivered.

That a signal is not missed as the main thread falls asleep is the matter of
listening.py: where the engine would sleep it says so, and is asked again through
`_listening_get`.

A thread-bound port takes a batch when one packet is asked for and keeps the rest
as records (`_kept`, of which `_left` numbers are not used yet), so operations stay
pending and pinned until their own turn.  It stops to do so when `fileno` is used:
that descriptor speaks of the engine's queue only.  A shared port never takes more
than it was asked for, since other threads wait for the rest.
"""

from __future__ import annotations

import socket
import weakref
from array import array
from operator import index
from threading import get_ident
from typing import TYPE_CHECKING, Any

from portio import accelerator, errors
from portio.adoption import Adopting, Refused, is_closed
from portio.completion import DROPPED, ERROR_MASK, Completion, Outcome
from portio.engine import GENERATION, TOKENS
from portio.keys import CompletionKey
from portio.listening import listen
from portio.operations.accept import AnyAccept
from portio.operations.base import QUIET, UNQUEUED
from portio.rescue import NOTHING, Completions, Records, Rescue
from portio.timeouts import FOREVER, Deadline, to_nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from portio.backends.native import CData
    from portio.operations.base import Entry

__all__ = ["ARRAY", "Completions", "PacketQueue", "Records", "salvaged"]

RECORD = 24  # bytes: three 64-bit integers, token, nbytes and status
ARRAY = 256  # records that one call of the engine can give
BATCH = 64  # packets that a thread-bound port takes when it is asked for one


class PacketQueue(Rescue):
    """A port as far as packets are concerned."""

    __slots__ = (
        "_arrays",
        "_dropped_accepts",
        "_records",
    )

    def _open_queue(self) -> None:
        #: Arrays for records that nobody uses, and their type.
        self._arrays: list[tuple[Records, CData]] = []
        self._records = self._ffi.typeof("portio_completion[]")
        self._batch = BATCH if self._owner else 1
        self._kept = NOTHING
        self._left = 0
        #: What settles the accepts that closing has dropped, by their tokens.
        self._dropped_accepts: dict[int, Any] = {}
        self._open_rescue()

    # ---- taking packets ----

    def get(self, timeout: float | None = None) -> Completion[Any] | None:
        """Takes the next packet; None when `timeout` seconds have passed without one.

        None waits for ever, 0 does not wait; it never returns early.  A KeyboardInterrupt
        loses no packet.

        Raises `PortClosedError` when the port is closed, also while it waits;
        RuntimeError in another thread than the owner of a thread-bound port and in
        a forked child; TypeError or ValueError for a bad time-out.
        """
        out: Completions = []
        try:
            done = self._next(out, timeout)
            if done is None and timeout is None:
                done = self._take_heard(self._next, out, None)
            if done:
                return out[0] if out else None
        except BaseException:
            self._rescue(out, NOTHING)
            self._come()
            raise
        return self._get_by_steps(timeout, listens=done is None)

    def _get_by_steps(self, timeout: float | None, *, listens: bool) -> Completion[Any] | None:
        """Does what C leaves of `get`; `listens`: the main thread is about to sleep."""
        out: Completions = []
        nanoseconds = FOREVER if timeout is None else to_nanoseconds(timeout)
        deadline = Deadline(nanoseconds) if nanoseconds > 0 else None
        c_get = self._listening_get if listens else self._c_get
        while True:
            taken: Records | None = NOTHING  # records that only we have; None: in the array
            try:
                if self._left or self._rescued:
                    self._take_leftover(out, 1)
                if not out:
                    try:
                        numbers, records = pair = self._arrays.pop()
                    except IndexError:
                        numbers, records = pair = self._make_array()
                    taken = None
                    count = c_get(self._native, records, self._batch, nanoseconds)
                    if count == 1:
                        self._take(out, numbers[0], numbers[1], numbers[2])
                    elif count > 1:
                        taken = numbers[: 3 * count]
                        self._take(out, taken[0], taken[1], taken[2])
                        self._keep(taken)
                    taken = NOTHING
                    self._arrays.append(pair)
            except BaseException:
                self._rescue(out, salvaged(numbers, self._batch) if taken is None else taken)
                raise
            if out:
                return out[0]
            if count == 0:
                return None
            if self._heed(count):
                c_get = self._listening_get
            if deadline is not None:
                nanoseconds = deadline.left()

    def get_many(self, limit: int = ARRAY, timeout: float | None = None) -> list[Completion[Any]]:
        """Takes all packets that are queued, at most `limit`, oldest first.

        Waits for the first as `get` does; the list is empty only when `timeout`
        seconds have passed.  Raises what `get` raises, and ValueError for a limit
        below 1.
        """
        out: Completions = []
        try:
            done = self._fill(out, limit, timeout)
            if done is None and timeout is None:
                done = self._take_heard(self._fill, out, limit, None)
            if done:
                return out
        except BaseException:
            self._rescue(out, NOTHING)
            self._come()
            raise
        limit = index(limit)
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        nanoseconds = FOREVER if timeout is None else to_nanoseconds(timeout)
        deadline = Deadline(nanoseconds) if nanoseconds > 0 else None
        c_get = self._c_get if done is not None else self._listening_get
        taken: Records | None = NOTHING
        most = 0
        try:  # around the loop: a signal handler may also run where it jumps back
            while True:
                count = 0
                if self._left or self._rescued:
                    self._take_leftover(out, limit)
                most = min(limit - len(out), ARRAY)
                if most:
                    try:
                        numbers, records = pair = self._arrays.pop()
                    except IndexError:
                        numbers, records = pair = self._make_array()
                    wait = 0 if out else nanoseconds
                    taken = None
                    count = c_get(self._native, records, most, wait)
                    if count > 0:
                        taken = numbers[: 3 * count]
                        packets = iter(taken.tolist())
                        for token, nbytes, status in zip(packets, packets, packets):  # noqa: B905
                            self._take(out, token, nbytes, status)
                    taken = NOTHING
                    self._arrays.append(pair)
                if out:
                    if count < most or len(out) >= limit:
                        return out  # and if the port was closed meanwhile, the next call says so
                elif count == 0:
                    return out
                else:
                    if self._heed(count):
                        c_get = self._listening_get
                    if deadline is not None:
                        nanoseconds = deadline.left()
        except BaseException:
            self._rescue(out, salvaged(numbers, most) if taken is None else taken)
            raise

    def __iter__(self) -> Iterator[Completion[Any]]:
        """Iterates over the packets, as `get` takes them, until the port is closed."""
        return self

    if TYPE_CHECKING:

        def __next__(self) -> Completion[Any]: ...

    def _advance(self, done: bool | None = False) -> Completion[Any]:  # noqa: FBT001, FBT002
        """Does what C leaves of the step of an iteration; `done`: what `_next` has said."""
        out: Completions = []
        try:
            if done is None:
                done = self._take_heard(self._next, out, None)
            if done:
                return out[0]
        except BaseException:
            self._rescue(out, NOTHING)
            self._come()
            raise
        try:
            completion = self._get_by_steps(None, listens=done is None)
        except errors.PortClosedError:
            raise StopIteration from None
        assert completion is not None, "a wait without end ends with a packet"
        return completion

    def _heed(self, count: int) -> bool:
        """The engine gave no packet for the program; raises unless to ask again is right.

        That is after a signal whose handler raised nothing, after a nudge, and when
        the engine did not sleep because it must listen to signals: true.
        """
        if count == self._lib.PORTIO_WOULD_SLEEP:
            return True
        if count >= 0 or count == self._lib.PORTIO_INTERRUPTED:
            return False
        raise self._refusal(count)

    def _listening_get(self, _: CData, records: CData, limit: int, nanoseconds: int) -> int:
        """Stands for portio_get where the main thread has to sleep."""
        return listen(self, 0, records, limit, nanoseconds)

    def _hears_news(self) -> bool:
        """Sleeps in the main thread until there may be a packet, which it does not take.

        False where the port does not do so (accelerator/take.c says why one would), and
        after a signal.
        """
        if not self._brief or self._owner:
            return False
        return listen(self, 0, self._null, 0, FOREVER) > 0

    def _take_heard(self, take: Callable[..., bool | None], *arguments: object) -> bool | None:
        """What `take` gives when there is news: in the main thread, which has to sleep."""
        while True:
            if not self._hears_news():
                return None
            done = take(*arguments)
            if done is False:  # a packet was rescued; who finds that one need not ask the engine
                self._come()
            if done is not None:
                return done

    def _come(self) -> None:
        """Gives up the packet that the thread has heard of: others may come for it."""
        if not self._owner and not self._forked:
            self._c_get(self._native, self._null, 0, 0)

    def _take(self, out: Completions, token: int, nbytes: int, status: int) -> None:
        """Turns a record into a completion, appended to `out`.

        Does nothing when somebody else has claimed the packet.  See the module's
        text for the order of its steps.
        """
        pending = self._pending
        try:
            entry: Any = pending[token]
        except KeyError:
            self._close_dropped(token, nbytes, status)
            return
        operation = entry[0]
        if operation is None:
            self._take_posted(out, token, entry[1])
            return
        completion: Completion[Any] = Completion()
        completion.operation = operation
        completion.key = entry[1]
        outcome: int | Outcome = nbytes
        silent = False
        if entry[2] is None and not status and not entry[6]:
            completion.nbytes = nbytes
            completion._outcome = None
        else:
            outcome = self._outcome_of(entry, nbytes, status)
            if entry[6] == UNQUEUED:
                outcome.last = weakref.ref(completion)
            else:
                silent = entry[6] == QUIET and not outcome.error
            completion.nbytes = outcome.nbytes
            completion._outcome = outcome
            if outcome.more:
                if not self._take_turn(out, entry, completion):
                    self._lose(token, completion)
                return
        try:
            del pending[token]  # the claim
        except KeyError:
            self._lose(token, completion)
            return
        operation._outcome = outcome
        operation._entry = None
        if not silent:
            out.append(completion)
        self._free.append((token + GENERATION) & TOKENS)

    def _outcome_of(self, entry: Entry, nbytes: int, status: int) -> Outcome:
        """What there is to say of a record besides its bytes."""
        settle = entry[2]
        error = status & ERROR_MASK
        more = status != error and bool(status >> 32 & self._lib.PORTIO_MORE)
        moved, value = settle(nbytes, error) if settle is not None else (nbytes, nbytes)
        if isinstance(value, Refused):
            error, value = int(value), None
        return Outcome(error, moved, value, more, entry[6] != UNQUEUED)

    def _take_posted(
        self, out: Completions, token: int, completion: Completion[Any] | None
    ) -> None:
        try:
            del self._pending[token]
        except KeyError:
            return
        if completion is not None:
            out.append(completion)
        self._free.append((token + GENERATION) & TOKENS)

    def _make_array(self) -> tuple[Records, CData]:
        """An array for records, as numbers and as the engine sees it."""
        numbers = array("q", bytes(RECORD * ARRAY))
        return numbers, self._ffi.from_buffer(self._records, numbers, True)

    def _keep(self, taken: Records) -> None:
        """Keeps all records of a batch but the first."""
        if self._left:  # a signal handler was here, and has kept some
            self._rescue([], taken[3:])
        else:
            self._kept = taken
            self._left = len(taken) - 3

    def _take_leftover(self, out: Completions, limit: int) -> None:
        """Takes what was rescued, and then from the batch that was kept."""
        if self._owner and get_ident() != self._owner:
            self._check_owner()  # which raises
        if self._rescued:
            self._take_rescued(out, limit)
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
                self._rescue([], array("q", (token, nbytes, status)))
                raise

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
        completion._outcome = None if payload is None else Outcome(0, nbytes, payload)
        token = self._new_token()
        self._pending[token] = None, completion
        refused = self._c_post(self._native, token)
        if refused:
            self._withdraw(token)
            raise self._refusal(refused)

    # ---- the end ----

    def _drop_packets(self) -> None:
        """The port is closed: whatever has not been taken is gone.

        Another thread may be just about to take a record that it has; it claims it,
        or we do.  Accepted sockets that nobody will see are closed.
        """
        entries = self._pending.copy()
        self._dropped_accepts.update(
            (token, entry[2]) for token, entry in entries.items() if isinstance(entry[0], AnyAccept)
        )
        for token, entry in entries.items():
            try:
                del self._pending[token]
            except KeyError:
                continue
            operation = entry[0]
            if operation is not None and operation._entry is entry:
                operation._outcome = DROPPED
                operation._entry = None  # and with it the pin
        left, self._left = self._left, 0
        records = self._kept[-left:] if left else array("q")
        untaken: Completions = []
        with self._rescue_lock:
            for done, rescued in self._rescued:
                untaken += done
                records += rescued
            self._rescued.clear()
        for at in range(0, len(records), 3):
            self._close_dropped(*records[at : at + 3])
        for completion in untaken:
            if isinstance(completion.operation, AnyAccept):
                _close_accepted(completion)

    def _close_dropped(self, token: int, nbytes: int, status: int) -> None:
        """Closes the connection of an accept that the closing port has dropped."""
        settle = self._dropped_accepts.pop(token, None)
        if settle is None or status & ERROR_MASK:
            return
        if isinstance(settle, Adopting):
            key = settle.key
            if key is not None and key.port is not None:
                key.close()
            elif not is_closed(settle) and not (key is not None and key.closed):
                socket.close(nbytes)
            return
        try:
            # It may have been settled, or half, and then a signal has come.
            socket.SocketType.detach(settle.socket)
        finally:
            socket.close(nbytes)

    def _lose(self, token: int, completion: Completion[Any]) -> None:
        """The same, when it has become a Python object already."""
        if self._dropped_accepts.pop(token, None) is not None:
            _close_accepted(completion)


accelerator.install(PacketQueue, "_take")
accelerator.stand_in(PacketQueue, __next__="_advance")


def _close_accepted(completion: Completion[Any]) -> None:
    outcome = completion._outcome
    value = outcome.value if isinstance(outcome, Outcome) else outcome
    if isinstance(value, socket.socket | CompletionKey):
        value.close()


def salvaged(numbers: Records, limit: int) -> Records:
    """The records of an interrupted call, up to the one that ends them."""
    for at in range(0, 3 * limit, 3):
        if numbers[at] == 0:
            return numbers[:at]
    return numbers[: 3 * limit]
