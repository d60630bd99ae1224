"""Serve TCP connections, and send back what each of them sends.

The first line of output is "listening on HOST:PORT", once connections are
accepted.  One worker uses a thread-bound port; more of them share one.

Exit status: 0 stopped by Ctrl-C or SIGTERM, which is how a server ends; 1 the
address cannot be used; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import portio
from portio.cli.common import (
    CommandError,
    add_backend,
    count,
    noted_signals,
    open_port,
    port_number,
    reason,
    shown,
)

BUFFER_SIZE = 16 * 1024
BACKLOG = 1024
ACCEPTS = 16  # accepts kept waiting, so that a burst of connections finds them ready
SHORTEST_PAUSE = 0.05  # seconds, after the first accept that failed; then twice as long, up to
LONGEST_PAUSE = 1.0
BATCH = 64  # completions that one of several workers takes at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="the address to serve (%(default)s)"
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=7007,
        metavar="P",
        help="the TCP port, 0 to let the system choose one (%(default)s)",
    )
    parser.add_argument(
        "--workers", type=count, default=1, metavar="N", help="worker threads (%(default)s)"
    )
    add_backend(parser)


def run(arguments: argparse.Namespace) -> int:
    """Carry out the command; return the exit status."""
    with (
        _listen(arguments.host, arguments.port) as listener,
        open_port(arguments.backend, thread_bound=arguments.workers == 1) as port,
    ):
        host, number = listener.getsockname()[:2]
        with _Server(port, listener, arguments.workers) as server, _signals_to(server):
            server.start()
            print(f"listening on {f'[{host}]' if ':' in host else host}:{number}", flush=True)
            server.work()
    return 0


def _listen(host: str, number: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        raise CommandError(f"{shown(host)}:{number}: {reason(error)}") from error
    except UnicodeError as error:
        raise CommandError(f"{shown(host)}: not the name of a host") from error


class _Receive(portio.Recv):
    """Receives for `connection`, again and again: one operation for its whole life."""

    def __init__(self, connection: _Connection) -> None:
        super().__init__(connection.key, connection.memory)
        self.connection = connection


class _Send(portio.Send):
    """Sends back what `connection` has received."""

    def __init__(self, connection: _Connection) -> None:
        super().__init__(connection.key, connection.memory)
        self.connection = connection


class _Connection:
    """One client: a buffer, and the two operations that take turns with it."""

    def __init__(self, port: portio.Port, client: socket.socket) -> None:
        self.client = client
        self.key = port.associate(client, self)
        self.memory = memoryview(bytearray(BUFFER_SIZE))
        self.receive = _Receive(self)
        self.send = _Send(self)


class _Accept(portio.Accept):
    """Accepts one connection after another, until that fails; then comes `pause`."""

    def __init__(self, listener: portio.CompletionKey) -> None:
        super().__init__(listener, multishot=True)
        self.pause = _Pause(self)


class _Pause(portio.Timer):
    """Waits before `accept` tries again, longer each time that it fails in a row.

    While the process is out of descriptors an accept fails as soon as it is
    started, so a server that simply tried again would spin.
    """

    def __init__(self, accept: _Accept) -> None:
        super().__init__(SHORTEST_PAUSE)
        self.accept = accept


class _Server:
    """The port, its workers and its connections."""

    def __init__(self, port: portio.Port, listener: socket.socket, workers: int) -> None:
        self.port = port
        self.workers = workers
        self.listener = port.associate(listener)
        self.shutdown = portio.CompletionKey("shutdown")
        self.threads: list[threading.Thread] = []
        self.connections: set[_Connection] = set()
        self.failures: list[BaseException] = []
        self.reported: set[int | None] = set()  # errors of accept that the operator has read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel what is pending, and close every connection."""
        self.port.close()
        for connection in self.connections:
            connection.client.close()

    def start(self) -> None:
        """Let every worker but the calling thread begin."""
        self.port.submit(*(_Accept(self.listener) for _ in range(ACCEPTS)))
        for number in range(1, self.workers):
            thread = threading.Thread(target=self._work, name=f"worker {number}")
            try:
                thread.start()
            except RuntimeError as error:
                raise CommandError(f"{thread.name} of {self.workers}: {error}") from error
            self.threads.append(thread)

    def work(self) -> None:
        """Serve until every worker has taken the shutdown key."""
        self._work()
        for thread in self.threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def stop(self) -> None:
        """Send every worker home, after the packets that are queued already."""
        for _ in range(self.workers):
            self.port.post(self.shutdown)

    def _work(self) -> None:
        """One worker: take completions, start what follows each of them."""
        stopping = False
        try:
            while not stopping:
                batch: list[portio.Operation[Any]] = []
                for done in self.port.get_many(BATCH):
                    if done.key is not self.shutdown:
                        self._follow(done, batch)
                    elif stopping:
                        self.port.post(self.shutdown)  # another worker's
                    else:
                        stopping = True
                if batch:
                    self.port.submit(*batch)
        except portio.PortClosedError:
            pass  # not all workers could be started
        except BaseException as error:  # noqa: BLE001 - work() raises it in the main thread
            self.failures.append(error)
            with suppress(portio.PortClosedError):
                self.stop()

    def _follow(self, done: portio.Completion[Any], batch: list[portio.Operation[Any]]) -> None:
        """Add to the batch what comes after a completion."""
        match done.operation:
            case _Receive(connection=connection) if done.nbytes and done.error is None:
                connection.send.buffer = connection.memory[: done.nbytes]
                batch.append(connection.send)
            case _Send(connection=connection) if done.error is None:
                batch.append(connection.receive)
            case _Receive(connection=connection) | _Send(connection=connection):
                # The end of the stream, or a client that went away: both are normal.
                self.connections.discard(connection)
                connection.key.close()
            case _Accept() as accept:
                self._follow_accept(accept, done, batch)
            case _Pause(accept=accept) as pause:
                pause.seconds = min(2 * pause.seconds, LONGEST_PAUSE)
                batch.append(accept)
            case _:  # a signal
                self.stop()

    def _follow_accept(
        self, accept: _Accept, done: portio.Completion[Any], batch: list[portio.Operation[Any]]
    ) -> None:
        """Welcome a client; or find out when to try again."""
        match done.error:
            case None:
                client: socket.socket = done.result()
                try:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connection = _Connection(self.port, client)
                except OSError:
                    client.close()
                else:
                    self.connections.add(connection)
                    batch.append(connection.receive)
                accept.pause.seconds = SHORTEST_PAUSE
            case ConnectionAbortedError():  # gone before it was accepted
                batch.append(accept)
            case error:
                if error.errno not in self.reported:
                    self.reported.add(error.errno)
                    print(f"portio echo: accept: {reason(error)}; retrying", file=sys.stderr)
                batch.append(accept.pause)


@contextmanager
def _signals_to(server: _Server) -> Iterator[None]:
    """Ctrl-C and SIGTERM complete a receive on the server's port.

    The interpreter writes the number of each signal to a socket as soon as it
    arrives, wherever the program is at that moment; nothing is interrupted.
    """
    wakeup, interpreter = socket.socketpair()
    with interpreter:
        interpreter.setblocking(False)
        key = server.port.associate(wakeup)
        server.port.submit(portio.Recv(key, bytearray(1)))
        former = signal.set_wakeup_fd(interpreter.fileno(), warn_on_full_buffer=False)
        try:
            with noted_signals("SIGINT", "SIGTERM", "SIGBREAK"):
                yield
        finally:
            signal.set_wakeup_fd(former)
            key.close()
