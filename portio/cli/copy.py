"""Copy a file, with many reads and writes in flight.

The copy appears under its name all at once, when every byte of it is on the
disk, and replaces a file that was there; until then, and after an error or a
signal, DST is what it was.  Permissions are kept, and so are holes where the
system can tell them.  A file that grows meanwhile is copied to its new end; one
that shrinks is an error.  On a terminal a progress bar is shown, where tqdm is
installed (pip install completion-port[cli]).

Exit status: 0 copied, 1 failed, 2 wrong arguments, 130 stopped by Ctrl-C,
143 by SIGTERM.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import portio
from portio.cli.common import (
    CommandError,
    Stopped,
    add_backend,
    count,
    noted_signals,
    open_port,
    reason,
    shown,
    size,
)

# Measured, cached and not, on ext4 and tmpfs, two processors: from 4 blocks in
# flight and 256 KiB in a block on, no choice is faster than these.  Blocks of
# 64 KiB cost a third more processor time; more than about 16 MiB in flight do not
# stay in the processor's cache, and take up to twice as long.
DEPTH = 8
BLOCK_SIZE = 512 * 1024
SMALLEST = 64 * 1024  # what a file of unknown length is read by, at least

Progress = Callable[[int], object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("source", metavar="SRC", help="the file to copy")
    parser.add_argument("target", metavar="DST", help="the name of the copy")
    add_backend(parser)
    parser.add_argument(
        "--depth",
        type=count,
        default=DEPTH,
        metavar="N",
        help="blocks in flight, each being read or written (default: %(default)s)",
    )
    parser.add_argument(
        "--block-size",
        type=size,
        default=BLOCK_SIZE,
        metavar="N",
        help=f"bytes in a block, such as 64KiB or 1MiB (default: {BLOCK_SIZE // 1024}KiB)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Carry out the command; return the exit status."""
    # Signals are noted and looked at between completions: no step of the copy
    # is interrupted half-way, so none has to be undone by guessing.
    with noted_signals("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") as signals:
        copy(
            arguments.source,
            arguments.target,
            backend=arguments.backend,
            depth=arguments.depth,
            block_size=arguments.block_size,
            signals=signals,
        )
    return 0


def copy(
    source: str,
    target: str,
    *,
    backend: str | None = None,
    depth: int = DEPTH,
    block_size: int = BLOCK_SIZE,
    signals: list[int],
) -> None:
    """Copy `source` to `target`; raises Stopped once `signals` holds one."""
    permissions = _check(source, target)
    # A link is followed, as a plain open would: its target is replaced, it stays.
    final = os.path.realpath(target)
    temporary = os.path.join(os.path.dirname(final), f".portio-{secrets.token_hex(8)}.tmp")
    with _errors_about(source):
        reader = portio.open(source)
    with reader, _errors_about(target):
        length = reader.size()
        try:
            with (
                portio.open(temporary, "x", permissions=0o600) as writer,
                open_port(backend, thread_bound=True) as port,
                _progress(source, length) as progress,
            ):
                transfer = _Transfer(port, reader, writer, (source, target), progress, signals)
                transfer.block_size = min(block_size, max(length, SMALLEST))
                transfer.blocks(length, depth)
                transfer.tail(length)
                os.chmod(temporary, permissions)
                transfer.sync()
            if signals:
                raise Stopped(signals[0])
            os.replace(temporary, final)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def _check(source: str, target: str) -> int:
    """Refuse what cannot be copied; return the permissions of the source."""
    found = os.stat(source)
    if stat.S_ISDIR(found.st_mode):
        raise CommandError(f"{shown(source)}: {os.strerror(errno.EISDIR)}")
    if not stat.S_ISREG(found.st_mode):
        raise CommandError(f"{shown(source)}: not a regular file")
    try:
        there = os.stat(target)
    except FileNotFoundError:
        if not os.path.basename(target):
            raise  # "new/" names a directory that does not exist
    else:
        if stat.S_ISDIR(there.st_mode):
            raise CommandError(f"{shown(target)}: {os.strerror(errno.EISDIR)}")
        if not stat.S_ISREG(there.st_mode):
            raise CommandError(f"{shown(target)}: not a regular file")
        if os.path.samestat(found, there):
            raise CommandError(f"{shown(source)} and {shown(target)} are the same file")
    # Not the set-user-ID bits: the copy may belong to another user.
    return stat.S_IMODE(found.st_mode) & 0o777


@contextmanager
def _errors_about(path: str) -> Iterator[None]:
    """What the system refuses within the block is said of the path that the user gave."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{shown(path)}: {reason(error)}") from error


class _Fetch(portio.Read):
    """Reads a block; `store` writes it."""

    def __init__(
        self, source: portio.CompletionKey, target: portio.CompletionKey, room: int
    ) -> None:
        self.memory = memoryview(bytearray(room))
        super().__init__(source, self.memory)
        self.store = _Store(self, target)

    def aim(self, block: tuple[int, int]) -> None:
        """Choose the block to read: its offset and its length."""
        self.offset, self.wanted = block
        self.buffer = self.memory[: self.wanted]


class _Store(portio.Write):
    """Writes what `fetch` has read."""

    def __init__(self, fetch: _Fetch, target: portio.CompletionKey) -> None:
        super().__init__(target, fetch.memory)
        self.fetch = fetch

    def aim(self, nbytes: int) -> None:
        """Choose the part of the block that the read has filled."""
        self.offset = self.fetch.offset
        self.buffer = self.fetch.memory[:nbytes]


class _Transfer:
    """The bytes of one file on their way into another."""

    block_size = BLOCK_SIZE

    def __init__(
        self,
        port: portio.Port,
        reader: portio.File,
        writer: portio.File,
        names: tuple[str, str],
        progress: Progress,
        signals: list[int],
    ) -> None:
        self.port = port
        self.names = names
        self.reader = reader
        self.writer = writer
        self.source = port.associate(reader)
        self.target = port.associate(writer)
        self.progress = progress
        self.signals = signals

    def blocks(self, length: int, depth: int) -> None:
        """Copy the first `length` bytes, up to `depth` blocks at a time."""
        # At its full length from the start: no write has to extend the file,
        # and holes need nothing else.
        self.writer.truncate(length)
        blocks = self._data(length)
        batch: list[portio.Operation[int]] = []
        for _, block in zip(range(depth), blocks, strict=False):
            batch.append(fetch := self._fetch())
            fetch.aim(block)
        in_flight = 0
        while batch:
            self.port.submit(*batch)
            in_flight += len(batch)
            batch = []
            while in_flight and not batch:
                for done in self._take():
                    in_flight -= 1
                    if (following := self._next(done, blocks)) is not None:
                        batch.append(following)

    def tail(self, position: int) -> None:
        """Copy what has been added meanwhile, block after block, to the end of the file.

        Also files whose length is not known beforehand, such as those of /proc.
        """
        fetch = self._fetch()
        while True:
            fetch.aim((position, self.block_size))
            nbytes = self._do(fetch)
            if nbytes == 0:
                return
            fetch.store.aim(nbytes)
            position += self._do(fetch.store)
            self.progress(nbytes)

    def sync(self) -> None:
        """Have the copy on the disk before it gets its name."""
        self._do(portio.Sync(self.target))

    def _next(
        self, done: portio.Completion[int], blocks: Iterator[tuple[int, int]]
    ) -> portio.Operation[int] | None:
        """What follows a completion: the block's write, or the next block's read."""
        match done.operation:
            case _Fetch() as fetch:
                if done.nbytes < fetch.wanted:
                    raise CommandError(f"{shown(self.names[0])}: shrank while it was copied")
                fetch.store.aim(done.nbytes)
                return fetch.store
            case _Store(fetch=fetch):
                self.progress(done.nbytes)
                if (block := next(blocks, None)) is not None:
                    fetch.aim(block)
                    return fetch
                return None
            case _:  # the tail and the sync come after the blocks
                raise AssertionError(done)

    def _take(self) -> list[portio.Completion[int]]:
        """Wait for completions; none of them is a failure."""
        completions = self.port.get_many()
        for done in completions:
            if done.error is not None:
                name = self.names[0 if done.key is self.source else 1]
                raise CommandError(f"{shown(name)}: {reason(done.error)}") from done.error
        if self.signals:
            raise Stopped(self.signals[0])
        return completions

    def _do(self, operation: portio.Operation[int] | portio.Operation[None]) -> int:
        """One operation, alone."""
        self.port.submit(operation)
        (done,) = self._take()
        return done.nbytes

    def _fetch(self) -> _Fetch:
        return _Fetch(self.source, self.target, self.block_size)

    def _data(self, length: int) -> Iterator[tuple[int, int]]:
        """The blocks to copy, as offsets and lengths."""
        position = 0
        for start, end in _extents(self.reader, length):
            self.progress(start - position)  # over a hole
            for offset in range(start, end, self.block_size):
                yield offset, min(self.block_size, end - offset)
            position = end
        self.progress(length - position)


def _extents(file: portio.File, length: int) -> Iterator[tuple[int, int]]:
    """Where a file has data and not holes, as far as the system can tell."""
    if sys.platform == "win32" or not hasattr(os, "SEEK_DATA"):
        yield 0, length
        return
    position = 0
    while position < length:
        try:
            start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole up to the end
            start, end = position, length  # a file system that does not know
        yield start, min(end, length)
        position = end


def _no_progress(nbytes: int) -> None:
    """Show nothing."""


@contextmanager
def _progress(name: str, length: int) -> Iterator[Progress]:
    """A progress bar on a terminal where tqdm is installed, else nothing."""
    if not sys.stderr.isatty():
        yield _no_progress
        return
    try:
        tqdm = importlib.import_module("tqdm").tqdm
    except ImportError:
        yield _no_progress
        return
    tqdm.monitor_interval = 0  # no thread of its own
    with tqdm(
        desc=os.path.basename(name), total=length, unit="B", unit_scale=True, unit_divisor=1024
    ) as bar:
        yield bar.update
