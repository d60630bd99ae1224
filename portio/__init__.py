"""portio: completion ports for Python, on Windows and on Linux.

A program starts operations on sockets, files, pipes and timers, and takes their
completions from a port, from as many threads as it likes.  See `Port`.
"""

from importlib.metadata import PackageNotFoundError, version

from portio.addresses import Address
from portio.buffers import Buffers
from portio.completion import Completion
from portio.errors import (
    BackendUnavailableError,
    NotSupportedError,
    OperationCancelledError,
    PortClosedError,
)
from portio.files import File, PipeEnd, open, pipe  # noqa: A004 (portio.open)
from portio.keys import CompletionKey
from portio.operations import (
    Accept,
    AcceptKey,
    Connect,
    Operation,
    Read,
    Recv,
    RecvFrom,
    RecvLent,
    RecvMultishot,
    Send,
    SendFile,
    SendTo,
    Shutdown,
    Sync,
    Timer,
    Write,
)
from portio.pools import BufferPool
from portio.port import Port
from portio.registered import RegisteredBuffer

__all__ = [
    "Accept",
    "AcceptKey",
    "Address",
    "BackendUnavailableError",
    "BufferPool",
    "Buffers",
    "Completion",
    "CompletionKey",
    "Connect",
    "File",
    "NotSupportedError",
    "Operation",
    "OperationCancelledError",
    "PipeEnd",
    "Port",
    "PortClosedError",
    "Read",
    "Recv",
    "RecvFrom",
    "RecvLent",
    "RecvMultishot",
    "RegisteredBuffer",
    "Send",
    "SendFile",
    "SendTo",
    "Shutdown",
    "Sync",
    "Timer",
    "Write",
    "__version__",
    "open",
    "pipe",
]

try:
    __version__ = version("completion-port")  # the distribution's name
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "unknown"

del PackageNotFoundError, version
