"""What differs between systems in the Python layer, behind one set of names.

The engines hide the systems' differences in I/O; what is left is how files are
opened and closed, what a descriptor is, and what the system's error numbers mean.
`posix` and `windows` have the same functions; nothing else in portio asks which
system it runs on, but where a feature does not exist at all (fork, Unix sockets).

A *descriptor* is what the engines take: on Linux a file descriptor, on Windows a
HANDLE or a SOCKET, and never a descriptor of the C runtime.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from portio.windows import (
        HAS_DIRECT,
        KERNEL_KEEPS_OWNERS,
        close,
        descriptor_getter,
        explain,
        file_size,
        identify,
        keep_code,
        open_file,
        open_pipe,
        truncate,
        usable_processors,
    )
else:
    from portio.posix import (
        HAS_DIRECT,
        KERNEL_KEEPS_OWNERS,
        close,
        descriptor_getter,
        explain,
        file_size,
        identify,
        keep_code,
        open_file,
        open_pipe,
        truncate,
        usable_processors,
    )

__all__ = [
    "HAS_DIRECT",
    "KERNEL_KEEPS_OWNERS",
    "close",
    "descriptor_getter",
    "explain",
    "file_size",
    "identify",
    "keep_code",
    "open_file",
    "open_pipe",
    "truncate",
    "usable_processors",
]
