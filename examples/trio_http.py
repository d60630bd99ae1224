"""Serves the files of a directory over HTTP/1.1, with h11 for the protocol.

    python trio_http.py [--host HOST] [--port PORT] [--backend NAME] DIRECTORY

GET and HEAD; one range of a file (206, 416); If-None-Match, If-Modified-Since and
If-Range; connections that stay open for further requests.  The bytes of a file go from
the page cache to the socket by the system (`portio.trio.send_file`), not through Python.

What leads out of the directory is refused, whether by ``..`` or by a symbolic link, and
so is what is no file.  A connection that meets an error nobody has foreseen ends, and
the error is logged; the others go on.
"""

from __future__ import annotations

import argparse
import email.utils
import errno
import functools
import http
import logging
import mimetypes
import os
import re
import stat
import urllib.parse
from dataclasses import dataclass

import h11
import trio

from portio.trio import BinaryFile, SocketStream, TrioPort, open_file, send_file, serve_tcp

IDLE = 30.0  # seconds that a request may take to arrive
PATIENCE = 300.0  # seconds that a client may take for one answer
RECEIVE = 16 * 1024  # bytes
RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")  # no file is longer

logger = logging.getLogger("trio_http")


class Refusal(Exception):  # noqa: N818 (an answer, and no error of ours)
    """An answer without a file."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(status)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Part:
    """A part of a file.  h11 only wants to know how long it is."""

    file: BinaryFile
    offset: int
    count: int

    def __len__(self) -> int:
        return self.count


def locate(root: str, target: bytes) -> str:
    """Finds the file that a request names; `root` is a real path.  May block."""
    path = urllib.parse.unquote_to_bytes(target.partition(b"?")[0])
    if not path.startswith(b"/") or b"\0" in path:
        raise Refusal(400)
    if b".." in path.split(b"/"):
        raise Refusal(403)
    found = os.path.realpath(os.path.join(root, os.fsdecode(path.lstrip(b"/"))))
    try:
        inside = os.path.commonpath([root, found]) == root
    except ValueError:  # on another drive
        inside = False
    if not inside:
        raise Refusal(403)
    if os.path.isdir(found):
        found = os.path.join(found, "index.html")
    if not stat.S_ISREG(os.stat(found).st_mode):
        raise Refusal(403)  # opening a FIFO would wait for somebody who writes
    return found


def tag_of(status: os.stat_result) -> str:
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'


def is_unchanged(headers: dict[str, str], status: os.stat_result) -> bool:
    """Whether the client's copy is good; a tag is more reliable than a time."""
    if (tags := headers.get("if-none-match")) is not None:
        known = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
        return "*" in known or tag_of(status) in known
    if (date := headers.get("if-modified-since")) is not None:
        try:
            return int(status.st_mtime) <= email.utils.parsedate_to_datetime(date).timestamp()
        except (ValueError, OverflowError, OSError):  # no date, or one out of this world
            return False
    return False


def find_range(headers: dict[str, str], status: os.stat_result) -> tuple[int, int] | None:
    """The first byte and the one after the last; None for the whole file."""
    found = RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    size = status.st_size
    if found is None or found[0] == "bytes=-" or not is_same(headers.get("if-range"), status):
        return None
    first, last = found.groups()
    begin = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if first and last and int(first) > int(last):
        return None  # no range at all
    if begin >= end:
        raise Refusal(416, Content_Range=f"bytes */{size}")
    return begin, end


def is_same(validator: str | None, status: os.stat_result) -> bool:
    modified = email.utils.formatdate(status.st_mtime, usegmt=True)
    return validator is None or validator in (tag_of(status), modified)


class Conversation:
    """A connection, from its first request to its last."""

    def __init__(self, stream: SocketStream, root: str) -> None:
        self.stream = stream
        self.root = root
        self.http = h11.Connection(h11.SERVER)

    async def hold(self) -> None:
        """Answers requests, one after the other."""
        while True:
            event = None
            with trio.move_on_after(IDLE):
                event = await self.next_event()
            if not isinstance(event, h11.Request):
                return
            with trio.move_on_after(PATIENCE):
                await self.answer(event)
            if self.http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                return
            self.http.start_next_cycle()

    async def next_event(self) -> object:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(await self.stream.receive_some(RECEIVE))
        return event

    async def answer(self, request: h11.Request) -> None:
        headers = {
            name.decode().lower(): value.decode("latin-1") for name, value in request.headers
        }
        try:
            if request.method not in (b"GET", b"HEAD"):
                raise Refusal(405, Allow="GET, HEAD")
            path = await trio.to_thread.run_sync(locate, self.root, request.target)
            file: BinaryFile
            async with await open_file(path, "rb") as file:
                await self.give(file, path, headers, head=request.method == b"HEAD")
        except Refusal as refusal:
            await self.refuse(refusal, head=request.method == b"HEAD")
        except OSError as error:
            if self.http.our_state is not h11.SEND_RESPONSE:
                raise  # an answer has begun: the client sees by its length that it is cut off
            missing = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
            await self.refuse(Refusal(404 if missing else 403), head=request.method == b"HEAD")
        while isinstance(event := self.http.next_event(), h11.Data):
            pass  # a body, which no request here has use for
        if event is h11.NEED_DATA:
            self.http.send_failed()

    async def give(self, file: BinaryFile, path: str, asked: dict[str, str], *, head: bool) -> None:
        if os.name == "nt":  # where a file has a HANDLE, which os.fstat does not take
            status = await trio.to_thread.run_sync(os.stat, path)
        else:
            status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Refusal(403)
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": tag_of(status),
            "Last-Modified": email.utils.formatdate(status.st_mtime, usegmt=True),
        }
        if is_unchanged(asked, status):
            await self.begin(304, headers)
            await self.end()
            return
        part = find_range(asked, status)
        begin, end = part or (0, status.st_size)
        if part is not None:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{status.st_size}"
        kind, encoding = mimetypes.guess_type(path)
        headers["Content-Type"] = kind if kind and not encoding else "application/octet-stream"
        headers["Content-Length"] = str(end - begin)
        await self.begin(200 if part is None else 206, headers)
        if not head and end > begin:
            await self.send(h11.Data(data=Part(file, begin, end - begin)))  # type: ignore[arg-type]
        await self.end()

    async def refuse(self, refusal: Refusal, *, head: bool) -> None:
        body = f"{refusal.status} {http.HTTPStatus(refusal.status).phrase}\n".encode()
        headers = {
            **refusal.headers,
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(body)),
        }
        await self.begin(refusal.status, headers)
        if not head:
            await self.send(h11.Data(data=body))
        await self.end()

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        date = email.utils.formatdate(usegmt=True)
        await self.send(
            h11.Response(
                status_code=status,
                reason=http.HTTPStatus(status).phrase,
                headers=[("Date", date), ("Server", "portio-trio-http"), *headers.items()],
            )
        )

    async def end(self) -> None:
        await self.send(h11.EndOfMessage())

    async def send(self, event: h11.Event) -> None:
        """Sends what h11 makes of an event; a part of a file goes by the system."""
        for piece in self.http.send_with_data_passthrough(event) or ():
            if isinstance(piece, Part):
                sent = await send_file(self.stream, piece.file, piece.offset, piece.count)
                if sent < piece.count:  # somebody has cut the file: the length was a promise
                    raise trio.BrokenResourceError
            elif piece:
                await self.stream.send_all(piece)


async def converse(root: str, stream: SocketStream) -> None:
    """Serves a connection; whatever happens to it is no matter of the others'."""
    try:
        await Conversation(stream, root).hold()
    except (h11.RemoteProtocolError, trio.BrokenResourceError):
        pass  # nonsense, or the client has gone
    except Exception:
        logger.exception("a connection has failed")


async def main(root: str, host: str, number: int, backend: str | None) -> None:
    handler = functools.partial(converse, root)
    async with TrioPort(backend=backend) as port, trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[object]]) -> None:
            await serve_tcp(handler, number, host=host, on=port, task_status=task_status)

        for listener in await nursery.start(serve):
            address = listener.socket.getsockname()
            print(f"listening on {address[0]}:{address[1]}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", metavar="DIRECTORY")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--backend")
    options = parser.parse_args()
    try:
        root = os.path.realpath(options.directory)
        trio.run(main, root, options.host, options.port, options.backend)
    except* KeyboardInterrupt:
        pass
