"""Programs in which the system refuses io_uring, as container runtimes do."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
IO_URING = {"setup": 425, "enter": 426, "register": 427}  # the same on every architecture


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def block(error: str, calls: str) -> None:
    """Let the named io_uring calls fail, for this process and all it starts."""
    numbers = [IO_URING[name] for name in calls.split(",")]
    code = [(LOAD, 0, 0, 0)]  # the number of the call
    for index, number in enumerate(numbers):
        code.append((JUMP_EQUAL, len(numbers) - index, 0, number))
    code.append((RETURN, 0, 0, ALLOW))
    code.append((RETURN, 0, 0, ERRNO | getattr(errno, error)))
    program = Program(len(code), b"".join(struct.pack("=HBBI", *line) for line in code))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) or libc.prctl(
        PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(program), zero, zero
    ):
        print("no filter can be installed here:", os.strerror(ctypes.get_errno()))
        sys.exit(77)


def choice(error: str, calls: str) -> None:
    """Which backend is chosen, and what is said about the other."""
    block(error, calls)
    import portio
    from portio import backends

    status = backends.available()["io_uring"]
    found: dict[str, object] = {
        "available": status.available,
        "reason": status.reason,
        "advice": status.advice,
        "default": backends.default(),
    }
    with portio.Port() as port:
        found["backend"] = port.backend
        port.post(None, 1, "works")
        completion = port.get(30)
        assert completion is not None
        found["result"] = completion.result()
    for name, kind in (("explicit", "shared"), ("explicit_bound", "bound")):
        try:
            portio.Port(backend="io_uring", thread_bound=kind == "bound").close()
        except portio.BackendUnavailableError as unavailable:
            found[name] = str(unavailable)
    print(json.dumps(found))


def environment_choice(error: str, calls: str) -> None:
    """PORTIO_BACKEND=io_uring is as explicit as an argument."""
    block(error, calls)
    import portio

    try:
        portio.Port().close()
    except portio.BackendUnavailableError as unavailable:
        print(unavailable)


def information(error: str, calls: str) -> None:
    """The command line explains it too."""
    block(error, calls)
    os.execv(sys.executable, [sys.executable, "-m", "portio", "info"])  # noqa: S606


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
