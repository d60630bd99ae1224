"""portio for trio: operations that are awaited, streams, and real asynchronous files.

The names and their arguments are trio's own; a program adopts them by changing an
import:

    from portio.trio import open_file, open_tcp_stream, serve_tcp

Every trio run has a port, made on first use and closed with the run.  See `TrioPort`
for others, and for what cancelling means; docs/guides/trio.md is the guide.

- ports.py: where completions meet the tasks that wait for them;
- wakes/: how completions reach trio's loop, on Linux and on Windows;
- streams.py, sockets.py, pipes.py, tcp.py: streams and listeners;
- binary.py and text.py, files.py, copying.py: files; buffered.py and decoded.py have the
  steps that they consist of.
"""

try:
    import trio as _trio
except ModuleNotFoundError as _error:
    if _error.name != "trio":
        raise
    raise ModuleNotFoundError(
        "portio.trio needs trio: pip install 'completion-port[trio]'", name="trio"
    ) from None

from portio.trio.binary import BinaryFile
from portio.trio.copying import copy_file, send_file
from portio.trio.files import open_file
from portio.trio.pipes import PipeReceiveStream, PipeSendStream, open_pipe
from portio.trio.ports import TrioPort, current_port, run
from portio.trio.sockets import SocketListener, SocketStream
from portio.trio.tcp import open_tcp_listeners, open_tcp_stream, serve_tcp
from portio.trio.text import TextFile

__all__ = [
    "BinaryFile",
    "PipeReceiveStream",
    "PipeSendStream",
    "SocketListener",
    "SocketStream",
    "TextFile",
    "TrioPort",
    "copy_file",
    "current_port",
    "open_file",
    "open_pipe",
    "open_tcp_listeners",
    "open_tcp_stream",
    "run",
    "send_file",
    "serve_tcp",
]

del _trio
