"""The ways of using a port, behind one interface.

A clause of the contract is proved once for each driver, so a test does not ask
the port for its packets: it submits through the driver and waits there for the
completion it means.  Only the clauses about `get` itself take packets from a
port with their own hands.

The driver is also the suite's bookkeeper.  Whatever a test is about, the driver
fails it when a completion arrives for an operation that was not started, when a
second one arrives, or when one is left over at the end that nobody expected.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, ParamSpec, TypeVar

import portio
from support.system import WINE
from support.watch import LIMIT, fail_with_dump

T = TypeVar("T")
P = ParamSpec("P")
Packet = portio.Completion[Any]


class Driver(ABC):
    """One port, and somebody who takes its packets."""

    name: ClassVar[str]
    port: portio.Port

    def __init__(self) -> None:
        # Numbers, not references: a driver that kept an operation alive would
        # hide a library that does not (O3).
        self._started: set[int] = set()
        self._quiet: set[int] = set()
        # Multishot ones that have ended: another worker may still bring one of their
        # completions that it took before the last.
        self._overtaken: set[int] = set()
        self._waiting: deque[Packet] = deque()
        self._barrier = portio.CompletionKey("barrier")

    # What the driver does with its port, in the thread that may.

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the port, of a key or of an operation where it is allowed."""
        return function(*args, **kwargs)

    def associate(self, handle: Any, data: object = None) -> portio.CompletionKey:
        return self.call(self.port.associate, handle, data)

    def disassociate(self, key: portio.CompletionKey) -> None:
        self.call(self.port.disassociate, key)

    def let_go(self, key: portio.CompletionKey) -> None:
        """Disassociate, in a test that is not about that: Wine cannot."""
        if not WINE:
            self.disassociate(key)

    def close_key(self, key: portio.CompletionKey) -> None:
        self.call(key.close)

    def submit(self, *operations: portio.Operation[Any], queued: bool = True) -> None:
        ids = {id(operation) for operation in operations} if queued else set()
        again = ids & self._started
        self._started |= ids  # before: a completion may overtake its submit (O4)
        try:
            self.call(self.port.submit, *operations, queued=queued)
        except BaseException:
            self._started -= ids - again
            raise

    def submit_quiet(self, *operations: portio.Operation[Any]) -> None:
        """Start operations that give a packet only when they fail."""
        self._quiet |= {id(operation) for operation in operations}
        self.call(self.port.submit, *operations, quiet=True)

    def wait(self, operation: portio.Operation[T], timeout: float = LIMIT) -> portio.Completion[T]:
        """The completion of an operation that was submitted with queued=False."""
        completion = self.call(operation.wait, timeout)
        if completion is None:
            fail_with_dump(f"{operation!r} did not complete within {timeout:g} s")
        return completion

    def post(
        self, key: portio.CompletionKey | None = None, nbytes: int = 0, payload: object = None
    ) -> None:
        """From any thread."""
        self.port.post(key, nbytes, payload)

    def cancel(self, operation: portio.Operation[Any]) -> None:
        """From any thread."""
        operation.cancel()

    # What arrives.

    def wait_for(
        self, operation: portio.Operation[T], limit: float = LIMIT
    ) -> portio.Completion[T]:
        """The completion of this operation; what else arrives stays for take()."""
        for completion in self._waiting:
            if completion.operation is operation:
                self._waiting.remove(completion)
                return completion
        deadline = time.monotonic() + limit
        while (completion := self._next(deadline)) is not None:
            if completion.operation is operation:
                return completion
            self._waiting.append(completion)
        return fail_with_dump(
            f"{self.name}: {operation!r} was not completed within {limit:g} s; "
            f"arrived instead: {list(self._waiting)}"
        )

    def wait_for_all(self, operations: Iterable[portio.Operation[Any]]) -> list[Packet]:
        """The completions of these operations, in the order of the operations."""
        wanted = list(operations)
        found: dict[int, Packet] = {}
        for completion in self.take(len(wanted)):
            if completion.operation is not None:
                found[id(completion.operation)] = completion
        missing = [operation for operation in wanted if id(operation) not in found]
        assert not missing, f"other packets arrived than those of {missing}"
        return [found[id(operation)] for operation in wanted]

    def take(self, count: int = 1, limit: float = LIMIT) -> list[Packet]:
        """The next packets, posted or completed, in the order of their arrival.

        A pool of threads delivers them in about the order in which they left
        the port; where the order matters, a test uses a port with its own hands.
        """
        taken: list[Packet] = []
        deadline = time.monotonic() + limit
        while len(taken) < count:
            packet = self._waiting.popleft() if self._waiting else self._next(deadline)
            if packet is None:
                fail_with_dump(
                    f"{self.name}: only {len(taken)} of {count} packets within {limit:g} s: "
                    f"{taken[-20:]}"
                )
            taken.append(packet)
        return taken

    def run(self, operation: portio.Operation[T]) -> portio.Completion[T]:
        """Submit, and wait for the completion."""
        self.submit(operation)
        return self.wait_for(operation)

    def result(self, operation: portio.Operation[T]) -> T:
        """Submit, wait, and give the result or raise the error."""
        return self.run(operation).result()

    def settle(self) -> list[Packet]:
        """Everything that is in the port now and was not taken yet.

        Packets are first in, first out: once a packet posted now has come
        through, nothing that was queued before it can still be on its way.
        """
        self._flush()
        arrived = list(self._waiting)
        self._waiting.clear()
        return arrived

    def assert_quiet(self) -> None:
        """Nothing has arrived that the test has not taken."""
        arrived = self.settle()
        assert arrived == [], f"unexpected packets: {arrived}"

    def close(self) -> None:
        """Close the port, and end who serves it."""
        self.port.close()

    # For the drivers.

    def _check(self, packet: Packet) -> None:
        """An operation completes once, and only when it was started."""
        if packet.operation is None:
            return
        if id(packet.operation) in self._quiet and packet.error is not None:
            self._quiet.discard(id(packet.operation))
        elif id(packet.operation) not in self._started and (
            packet.last or id(packet.operation) not in self._overtaken
        ):
            raise AssertionError(f"a completion without a start, or a second one: {packet!r}")
        if packet.last:
            self._started.discard(id(packet.operation))
            if getattr(packet.operation, "multishot", False):
                self._overtaken.add(id(packet.operation))

    def _is_barrier(self, packet: Packet) -> bool:
        return packet.operation is None and packet.key is self._barrier

    @abstractmethod
    def _next(self, deadline: float) -> Packet | None:
        """The next packet, or None when the deadline has passed."""

    def _flush(self) -> None:
        """Move what is in the port now into `_waiting`; this way is for one consumer."""
        self.port.post(self._barrier)
        deadline = time.monotonic() + LIMIT
        while (packet := self._next(deadline)) is not None:
            if self._is_barrier(packet):
                return
            self._waiting.append(packet)
        fail_with_dump(f"{self.name}: a posted packet was lost")


class OneThread(Driver):
    """A thread-bound port, used by the thread of the test alone."""

    name = "one_thread"

    def __init__(self, backend: str, concurrency: int = 0, *, lazy_submit: bool = False) -> None:
        super().__init__()
        self.port = portio.Port(
            concurrency, backend=backend, thread_bound=True, lazy_submit=lazy_submit
        )

    def _next(self, deadline: float) -> Packet | None:
        packet = self.port.get(max(0.0, deadline - time.monotonic()))
        if packet is not None:
            self._check(packet)
        return packet


class WorkerPool(Driver):
    """A shared port served by worker threads, each with its own way to ask for packets.

    What they take reaches the test through a mailbox.
    """

    name = "worker_pool"

    def __init__(self, backend: str, concurrency: int = 0) -> None:
        super().__init__()
        self.port = portio.Port(concurrency, backend=backend)
        self._mailbox: SimpleQueue[Packet | BaseException] = SimpleQueue()
        self._held: SimpleQueue[None] = SimpleQueue()
        self._release = threading.Event()
        self._workers = [
            threading.Thread(target=self._serve, args=(work,), name=f"worker {work.__name__}")
            for work in (self._iterate, self._get_many, self._get)
        ]
        for worker in self._workers:
            worker.daemon = True
            worker.start()

    def close(self) -> None:
        super().close()
        for worker in self._workers:
            worker.join(LIMIT)
            if worker.is_alive():
                fail_with_dump(f"{worker.name} did not see that the port was closed")
        while not self._mailbox.empty():
            if isinstance(packet := self._mailbox.get(), BaseException):
                raise packet

    def _next(self, deadline: float) -> Packet | None:
        try:
            packet = self._mailbox.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            return None
        if isinstance(packet, BaseException):
            raise packet
        self._check(packet)
        return packet

    def _flush(self) -> None:
        # One packet after the other, until each worker holds one: what a worker
        # took earlier is in the mailbox by then.
        for _ in self._workers:
            self.port.post(self._barrier)
            try:
                self._held.get(timeout=LIMIT)
            except Empty:
                self._raise_from_worker()
                fail_with_dump(f"{self.name}: a posted packet was lost")
        release, self._release = self._release, threading.Event()
        release.set()
        while not self._mailbox.empty():
            packet = self._next(time.monotonic() + LIMIT)
            assert packet is not None
            self._waiting.append(packet)

    def _raise_from_worker(self) -> None:
        while not self._mailbox.empty():
            if isinstance(packet := self._mailbox.get(), BaseException):
                raise packet

    def _serve(self, work: Callable[[], None]) -> None:
        try:
            work()
        except portio.PortClosedError:
            pass
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self._mailbox.put(error)

    # A worker keeps no reference to a packet that it has handed over.

    def _iterate(self) -> None:
        for packet in self.port:
            self._hand_over(packet)
            del packet

    def _get_many(self) -> None:
        while True:
            packets = self.port.get_many(16)
            packets.reverse()
            while packets:
                self._hand_over(packets.pop())

    def _get(self) -> None:
        while True:
            packet = self.port.get(timeout=LIMIT)
            if packet is not None:
                self._hand_over(packet)
            del packet

    def _hand_over(self, packet: Packet) -> None:
        if not self._is_barrier(packet):
            self._mailbox.put(packet)
            return
        release = self._release
        self._held.put(None)
        with self.port.blocking():
            release.wait(LIMIT)


DRIVERS: dict[str, type[OneThread | WorkerPool]] = {
    driver.name: driver for driver in (OneThread, WorkerPool)
}
