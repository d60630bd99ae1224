"""The kinds of operation, as classes: each names its arguments and its result.

`base` holds what they share; `accept`, `sockets`, `multishot`, `files` and `timers` the kinds.
"""

from portio import accelerator
from portio.operations.accept import Accept, AcceptKey
from portio.operations.base import Operation
from portio.operations.files import Read, Sync, Write
from portio.operations.multishot import RecvLent, RecvMultishot
from portio.operations.sockets import (
    Connect,
    Recv,
    RecvFrom,
    Send,
    SendFile,
    SendTo,
    Shutdown,
)
from portio.operations.timers import Timer

__all__ = [
    "Accept",
    "AcceptKey",
    "Connect",
    "Operation",
    "Read",
    "Recv",
    "RecvFrom",
    "RecvLent",
    "RecvMultishot",
    "Send",
    "SendFile",
    "SendTo",
    "Shutdown",
    "Sync",
    "Timer",
    "Write",
]

accelerator.construct(Accept, AcceptKey, Read, Recv, RecvLent, RecvMultishot, Send, Write)
