"""What a child does for a test on Windows, where one process can ask little of another.

A script run by `support.children` imports this first.  A thread of the child then
obeys the test, one byte at a time through a loopback connection, and answers each
when it is done:

    i   press Ctrl-C, b  Ctrl-Break: the child has a console of its own to itself
    w   wait until the main thread is blocked in the call it is in
    d   write every thread's stack to standard error
"""

from __future__ import annotations

import faulthandler
import os
import runpy
import signal
import socket
import sys
import threading
import types

from support.watch import wait_until_blocked

VARIABLE = "PORTIO_TEST_CONTROL"


def start() -> None:
    """Begin to obey whoever listens at the port that the environment names."""
    port = os.environ.get(VARIABLE)
    if port is not None:
        connection = socket.create_connection(("127.0.0.1", int(port)))
        threading.Thread(target=_obey, args=[connection], daemon=True).start()


def run() -> None:
    """Be `python ARGUMENT...` for the arguments that follow, and obey."""
    start()
    option, *rest = sys.argv[1:]
    if option == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif option == "-c":
        sys.argv = ["-c", *rest[1:]]
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main  # what is pickled or started again is looked up there
        exec(compile(rest[0], "<string>", "exec", dont_inherit=True), main.__dict__)  # noqa: S102 - as Python does
    else:
        sys.argv = [option, *rest]
        runpy.run_path(option, run_name="__main__")


def _obey(connection: socket.socket) -> None:
    while command := connection.recv(1):
        if command == b"w":
            wait_until_blocked(threading.main_thread())
        elif command == b"d":
            faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        elif sys.platform == "win32":
            number = {b"i": signal.CTRL_C_EVENT, b"b": signal.CTRL_BREAK_EVENT}[command]
            os.kill(0, number)
        connection.sendall(command)
