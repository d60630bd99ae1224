"""What a type checker sees of portio.  Checked by mypy, never run."""

from __future__ import annotations

import array
import mmap
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import portio
from portio import backends


class Session:
    """A program's own data of a connection."""


class Receive(portio.Recv):
    """A program's own operation, with state."""

    def __init__(self, key: portio.CompletionKey, buffer: bytearray) -> None:
        super().__init__(key, buffer)
        self.data = buffer
        self.session = Session()


def results(port: portio.Port, key: portio.CompletionKey, file: portio.File) -> None:
    buffer = bytearray(1)
    assert_type(portio.Accept(key).result(), socket.socket)
    assert_type(portio.Accept(key, multishot=True).result(), socket.socket)
    assert_type(portio.AcceptKey(key, multishot=True).result(), portio.CompletionKey)
    assert_type(portio.RecvMultishot(key, portio.BufferPool(port, 4, 4096)).result(), bytes)
    assert_type(portio.RecvLent(key, portio.BufferPool(port, 4, 4096)).result(), memoryview)
    assert_type(portio.Connect(key, ("127.0.0.1", 80)).result(), None)
    assert_type(portio.Recv(key, buffer).result(), int)
    assert_type(portio.Send(key, b"x", socket.MSG_DONTROUTE).result(), int)
    assert_type(portio.RecvFrom(key, buffer).result(), tuple[int, Any])
    assert_type(portio.SendTo(key, b"x", ("::1", 80, 0, 0)).result(), int)
    assert_type(portio.Shutdown(key).result(), None)
    assert_type(portio.SendFile(key, file, 0, None).result(), int)
    assert_type(portio.Read(key, buffer, 1 << 40).result(), int)
    assert_type(portio.Write(key, b"x").result(), int)
    assert_type(portio.Sync(key, data_only=True).result(), None)
    assert_type(portio.Timer(0.5).result(), None)
    assert_type(Receive(key, buffer).result(), int)


def unqueued(key: portio.CompletionKey) -> None:
    operation = portio.Accept(key)
    assert_type(operation.wait(1), portio.Completion[socket.socket] | None)
    if (done := operation.wait()) is not None:
        assert_type(done.result(), socket.socket)


def completions(port: portio.Port) -> None:
    assert_type(port.get(), portio.Completion[Any] | None)
    assert_type(port.get_many(10, 0.5), list[portio.Completion[Any]])
    assert_type(iter(port), Iterator[portio.Completion[Any]])
    for done in port:
        assert_type(done.operation, portio.Operation[Any] | None)
        assert_type(done.key, portio.CompletionKey | None)
        assert_type(done.nbytes, int)
        assert_type(done.error, OSError | None)
        assert_type(done.payload, object)
        assert_type(done.last, bool)


def narrowing(port: portio.Port, shutdown: portio.CompletionKey) -> None:
    for done in port:
        match done.operation:
            case None if done.key is shutdown:
                break
            case portio.Accept() as accept:
                assert_type(accept, portio.Accept)
                assert_type(accept.result(), socket.socket)
                assert_type(accept.key, portio.CompletionKey)
            case Receive() as receive if done.nbytes:
                assert_type(receive.data, bytearray)
                assert_type(receive.session, Session)
                port.submit(portio.Send(receive.key, receive.data[: done.nbytes]))
            case portio.Read(offset=0) as read:
                assert_type(read.offset, int)
            case portio.Timer() as timer:
                assert_type(timer.key, portio.CompletionKey | None)
            case _:
                pass


def handles(port: portio.Port, path: Path) -> None:
    with portio.open(path, "r+") as file, portio.open(bytes(path), permissions=0o600):
        assert_type(file, portio.File)
        assert_type(port.associate(file, data=Session()), portio.CompletionKey)
    reader, writer = portio.pipe()
    assert_type(reader, portio.PipeEnd)
    with port.associate(writer) as key:
        assert_type(key.data, object)
        assert_type(key.port, portio.Port | None)
    port.associate(socket.socket())
    port.associate(5)
    with path.open("rb") as python_file:
        port.associate(python_file)
    port.associate("path")  # type: ignore[arg-type]


def buffers(key: portio.CompletionKey) -> None:
    portio.Recv(key, bytearray(1))
    portio.Recv(key, memoryview(bytearray(1)))
    portio.Recv(key, mmap.mmap(-1, 1))
    portio.Recv(key, array.array("d"))
    portio.Send(key, [b"x", bytearray(1)])
    portio.Send(key, (b"x", memoryview(b"y")))
    portio.Send(key, "text")  # type: ignore[arg-type]
    portio.Send(key, 5)  # type: ignore[arg-type]
    portio.Connect(key, 5)  # type: ignore[arg-type]
    portio.Accept(key, True)  # type: ignore[call-arg]
    portio.RecvMultishot(key, bytearray(1))  # type: ignore[arg-type]


def ports() -> None:
    with portio.Port(2, backend="epoll") as port:
        assert_type(port, portio.Port)
        assert_type(port.fileno(), int)
        port.post(None, 1, payload={"any": "thing"})
        with port.blocking():
            pass
    portio.Port(thread_bound=True, lazy_submit=True).close()
    assert_type(backends.available(), dict[str, backends.BackendStatus])
    assert_type(backends.default(), str)
