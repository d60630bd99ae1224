"""The third way of using a port: a trio run in which every operation is awaited.

The run is a guest (`trio.lowlevel.start_guest_run`) in the thread of the test, which
turns the loop whenever it waits for something; trio itself waits for the system in
another thread.  So the test may use keys and files with its own hands, as with a port
of one thread, and guest runs are proved on the way.

A single operation is awaited by a task of its own (`TrioPort.complete`).  Several that
go in one call, and posted packets, are taken by one more task (`TrioPort.get`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import outcome
import trio

import portio
from portio.trio import TrioPort
from support.drivers import Driver, Packet
from support.watch import LIMIT, fail_with_dump


class TrioRun(Driver):
    """A port in a trio run."""

    name = "trio"

    def __init__(self, backend: str) -> None:
        super().__init__()
        self._mailbox: deque[Packet] = deque()
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()  # of trio to its host
        self._token: trio.lowlevel.TrioToken | None = None
        self._end: outcome.Outcome[None] | None = None
        trio.lowlevel.start_guest_run(
            self._main,
            backend,
            run_sync_soon_threadsafe=self._calls.put,
            done_callback=self._ended,
            host_uses_signal_set_wakeup_fd=True,
        )
        self._turn_until(lambda: self._token is not None, "the run has begun")

    # For the test.

    def submit(self, *operations: portio.Operation[Any], queued: bool = True) -> None:
        many = len(operations) != 1 or getattr(operations[0], "multishot", False)
        if not queued or many or self._token is None:
            super().submit(*operations, queued=queued)
            self._in_run(lambda: None)  # what was submitted lazily is handed over now
            return
        identity = id(operations[0])
        again = identity in self._started
        self._started.add(identity)
        failure: list[Exception] = []
        self._start(operations[0], failure)
        if failure:
            if not again:
                self._started.discard(identity)
            raise failure.pop()

    def close(self) -> None:
        if self._token is None:
            return
        self._in_run(self._port.close)
        self._token = None
        self._turn_until(lambda: self._end is not None, "the run ends")
        assert self._end is not None
        self._end.unwrap()

    def _next(self, deadline: float) -> Packet | None:
        if not self._turn(lambda: bool(self._mailbox), deadline):
            return None
        packet = self._mailbox.popleft()
        if not self._is_barrier(packet):
            self._check(packet)
        return packet

    # The host of the run.

    def _turn(self, done: Callable[[], bool], deadline: float) -> bool:
        """Turn trio's loop until `done`; False when the deadline has passed."""
        while not done():
            if self._end is not None:
                self._end.unwrap()
                return False
            try:
                call = self._calls.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                return False
            call()
        return True

    def _turn_until(self, done: Callable[[], bool], what: str) -> None:
        if not self._turn(done, time.monotonic() + LIMIT):
            fail_with_dump(f"{self.name}: not within {LIMIT:g} s: {what}")

    def _in_run(self, function: Callable[[], object]) -> None:
        """Call a function in the run, and let the loop go round once."""
        if self._token is None:
            return
        called: list[object] = []
        self._token.run_sync_soon(lambda: called.append(function()))
        self._turn_until(lambda: bool(called), f"{function} was called")

    def _ended(self, end: outcome.Outcome[None]) -> None:
        self._end = end

    # In the run.

    async def _main(self, backend: str) -> None:
        async with TrioPort(backend=backend) as self._port, trio.open_nursery() as self._nursery:
            self.port = self._port.port
            self._token = trio.lowlevel.current_trio_token()
            async for packet in self._port:
                if self._is_barrier(packet):
                    # Tasks whose operations completed before have been scheduled
                    # before; once around, and all of them have delivered.
                    await trio.lowlevel.checkpoint()
                self._mailbox.append(packet)
                del packet

    def _start(self, operation: portio.Operation[Any], failure: list[Exception]) -> None:
        begun: list[None] = []
        ended: list[None] = []
        # By submit, for sure; some tests start what is no operation at all.
        refused = getattr(operation, "pending", True)

        async def complete() -> None:
            # In one step of this task the operation is submitted, or refused; but the
            # refusal comes out of `complete` after a checkpoint.
            nonlocal operation
            begun.append(None)
            try:
                packet = await self._port.complete(operation)
            except Exception as error:  # noqa: BLE001 - submit raises it
                failure.append(error)
            else:
                del operation
                self._mailbox.append(packet)
            ended.append(None)

        self._in_run(lambda: self._nursery.start_soon(complete))
        self._turn_until(lambda: bool(begun), "the operation was submitted")
        if refused or not operation.pending:
            self._turn_until(lambda: bool(ended), "the operation was refused, or is complete")
