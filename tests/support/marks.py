"""Marks of tests that some systems cannot run, each with its reason."""

from __future__ import annotations

import pytest

from portio import accelerator
from support.system import WINDOWS

needs_fork = pytest.mark.skipif(WINDOWS, reason="Windows has no fork")
needs_posix_signals = pytest.mark.skipif(
    WINDOWS, reason="Windows has no signals but Ctrl-C and Ctrl-Break, and no timer that sends one"
)
needs_posix_modes = pytest.mark.skipif(
    WINDOWS, reason="Windows keeps no permission bits but read-only"
)
needs_unix_sockets = pytest.mark.skipif(WINDOWS, reason="Python has no Unix sockets on this system")
needs_resource_limits = pytest.mark.skipif(
    WINDOWS,
    reason="Windows limits neither the handles of a process nor the size of its files, and its "
    "memory only in a job object",
)
needs_chosen_numbers = pytest.mark.skipif(
    WINDOWS, reason="Windows gives handles the numbers that it likes: there is no dup2"
)
needs_descriptors = pytest.mark.skipif(
    WINDOWS, reason="a descriptor of the C runtime was not opened for overlapped I/O"
)
needs_c = pytest.mark.skipif(
    not accelerator.ACCELERATED,
    reason="the accelerator is absent (a free-threaded CPython, PORTIO_ACCELERATOR=0, or not "
    "built): there are no steps in C",
)

wine_cannot_disassociate = pytest.mark.wine_limitation(
    "take a handle from its port (FileReplaceCompletionInformation)"
)
wine_ignores_concurrency = pytest.mark.wine_limitation("limit the threads that run at a time")
wine_releases_the_first = pytest.mark.wine_limitation("release the last waiting thread first")
kernel_sees_who_blocks = pytest.mark.skipif(
    WINDOWS,
    reason="a thread of a test that holds its packet and waits for orders has given up its place "
    "there: see test_windows.py for threads that run",
)
wine_keeps_ctrl_break = pytest.mark.wine_limitation("give Ctrl-Break to a handler of SIGBREAK")
wine_tells_only_who_waits = pytest.mark.wine_limitation(
    "tell of a socket's error whoever receives after it, or receive datagrams after one"
)
# Its server asks the sending thread to go on.  When the connection is reset before that
# thread has answered that there is no room yet, the send waits for ever (`aborted` in the
# server's sock.c); when the socket is closed before it goes on, it goes on with the next
# owner of the number (async_send_proc in ntdll's socket.c).
wine_forgets_who_sends = pytest.mark.wine_limitation(
    "end every send that is under way when its connection is reset or its socket closed"
)
wine_forgets_what_was_sent = pytest.mark.wine_limitation(
    "say how much of a cancelled send has gone"
)
