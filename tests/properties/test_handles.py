"""Handles: descriptor numbers come and go, but nobody gets another's completion."""

from __future__ import annotations

import errno
import functools
import os
import socket
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, initialize, multiple, rule

import portio

from .ledger import CANCELLED, Submission
from .machines import SWITCHES, PortMachine, walk
from .streams import Handle, is_open
from .test_streams import connected

MESSAGE = 8


@dataclass(eq=False)
class Life:
    """One use of a descriptor number, from its opening to its closing."""

    tag: bytes
    handle: Handle | int
    peer: Handle
    port: portio.Port
    key: portio.CompletionKey
    receiving: type[portio.Recv | portio.Read]
    closed: bool = False  # by its key
    abandoned: bool = False  # closed without a word to the port

    def speak(self) -> None:
        """Let the peer say who it is."""
        os.write(self.peer.fileno(), self.tag)


class HandleMachine(PortMachine):
    """Handles of several kinds that are opened, moved and closed in every way."""

    lives: ClassVar[Bundle[Life]] = Bundle("lives")
    submitted: ClassVar[Bundle[Submission]] = Bundle("submitted")

    def __init__(self, backend: str, thread_bound: bool) -> None:
        super().__init__(backend, thread_bound)
        self.all_lives: list[Life] = []

    @initialize(switches=SWITCHES)
    def begin(self, switches: str) -> None:
        """Open the ports."""
        self.open_ports(switches)

    @rule(
        target=lives,
        which=st.integers(0, 1),
        kind=st.sampled_from(["unix", "tcp", "datagram", "pipe"]),
        by_number=st.booleans(),
    )
    def open_handle(self, which: int, kind: str, *, by_number: bool) -> MultipleResults[Life]:
        """Open a handle, which gets the lowest free number, and associate it."""
        if sum(not life.closed for life in self.all_lives) >= 6:
            return multiple()
        handle, peer = pair(kind)
        given: Handle | int = handle
        if by_number and isinstance(handle, socket.socket):
            given = handle.detach()
        port = self.ports[which]
        life = Life(
            tag=b"%0*d" % (MESSAGE, len(self.all_lives)),
            handle=given,
            peer=peer,
            port=port,
            key=portio.CompletionKey(),
            receiving=portio.Read if kind == "pipe" else portio.Recv,
        )
        life.key = port.associate(given, life)
        assert life.key.data is life
        self.all_lives.append(life)
        return multiple(life)

    @rule(target=submitted, life=lives, queued=st.booleans())
    def receive(self, life: Life, *, queued: bool) -> MultipleResults[Submission]:
        """Wait for the peer, unless the handle is closed."""
        buffer = self.ledger.buffer(MESSAGE)
        submission = Submission(life.receiving(life.key, buffer), life.port, queued, [buffer])
        submission.end = life
        if life.abandoned:
            return multiple()
        if life.closed:
            with pytest.raises(ValueError, match="closed"):
                self.submit(life.port, submission)
            assert not submission.operation.pending
            return multiple()
        self.submit(life.port, submission)
        return multiple(submission)

    @rule(life=lives)
    def speak(self, life: Life) -> None:
        """The peer sends."""
        if not life.closed and not life.abandoned:
            life.speak()

    @rule(life=lives)
    def close_key(self, life: Life) -> None:
        """Close; the peer sees it although nobody has taken a completion yet."""
        self.excuse(life)
        before = life.closed or life.abandoned
        life.key.close()
        life.closed = True
        if not before and isinstance(life.peer, socket.socket):
            if life.peer.type == socket.SOCK_STREAM:
                life.peer.settimeout(20)
                try:
                    assert life.peer.recv(1) == b""
                except ConnectionResetError:
                    pass  # what it said had not been received
        elif not before:
            with pytest.raises(BrokenPipeError):
                os.write(life.peer.fileno(), b"x")

    @rule(life=lives)
    def close_behind_the_back(self, life: Life) -> None:
        """Close a handle without a word to the port: its number is free at once."""
        if life.closed or isinstance(life.handle, int):
            return
        self.excuse(life)
        life.handle.close()
        life.abandoned = True

    @rule(life=lives, which=st.integers(0, 1))
    def move(self, life: Life, which: int) -> None:
        """To another port, when nothing is pending."""
        if life.closed or life.abandoned:
            return
        idle = not any(each.end is life for each in self.ledger.pending.values())
        try:
            life.port.disassociate(life.key)
        except OSError as error:
            if idle or error.errno != errno.EBUSY:
                raise
            return
        life.port = self.ports[which]
        life.key = life.port.associate(life.handle, life)

    @rule(submission=submitted)
    def cancel(self, submission: Submission) -> None:
        """A request."""
        submission.excused |= not submission.done
        submission.operation.cancel()

    @rule(which=st.integers(0, 1))
    def take(self, which: int) -> None:
        """Everything that comes belongs to the life that had asked for it."""
        self.ledger.take(self.ports[which])
        self.check()

    @rule(submission=submitted)
    def wait(self, submission: Submission) -> None:
        """Ask for the completion of an unqueued operation."""
        if not submission.done and not submission.queued:
            self.ledger.wait(submission)
            self.check()

    def excuse(self, life: Life) -> None:
        """What is pending on this handle may be cancelled from now on."""
        for submission in self.ledger.pending.values():
            if submission.end is life:
                submission.excused = True

    def check(self) -> None:
        """Compare each completion with the life it belongs to."""
        for submission in self.submissions:
            if not submission.done or submission.end is None:
                continue
            life, submission.end = submission.end, None
            assert isinstance(life, Life)
            key = submission.operation.key
            assert key is not None
            assert key.data is life
            if submission.error is None:
                assert submission.received == life.tag
            else:
                # The next step of an operation finds the number to be another file's.
                noticed = life.abandoned and submission.error.errno == errno.EBADF
                assert noticed or isinstance(submission.error, CANCELLED), submission.error
                assert submission.excused
                assert submission.nbytes == 0

    def settle(self) -> None:
        """Each life that is left gets a last message, the others are closed."""
        for life in self.all_lives:
            if life.abandoned and not life.closed:
                life.key.close()
        for submission in list(self.ledger.pending.values()):
            if not submission.excused:
                submission.end.speak()
        self.ledger.settle(self.ports)
        self.check()

    def release(self) -> None:
        """Close what is still open."""
        for life in self.all_lives:
            if not life.closed and not life.abandoned:
                if isinstance(life.handle, int):
                    os.close(life.handle)
                else:
                    assert is_open(life.handle)
                    life.handle.close()
            life.peer.close()
            del life.key, life.port


def pair(kind: str) -> tuple[Handle, Handle]:
    """A handle to receive from, and its peer."""
    match kind:
        case "unix":
            return socket.socketpair()
        case "tcp":
            return connected()
        case "datagram":
            return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        case _:
            return portio.pipe()


def test_handles(backend: str, *, thread_bound: bool) -> None:
    """A random walk over associations."""
    walk(functools.partial(HandleMachine, backend, thread_bound), examples=80, steps=40)
