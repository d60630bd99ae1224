# SPDX-License-Identifier: MIT
"""Run a program under Wine: its output comes through a pipe, and ends when it ends.

    python tools/windows/run.py PREFIX PROGRAM [ARGUMENT...]

Under Wine Python starts neither without a standard input nor with a file as its
output.  And the first program under Wine starts services that keep its output open for
as long as they live, which is why nobody may wait for the end of that.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path


def wine_settings(prefix: Path) -> dict[str, str]:
    """Give the variables with which Wine uses a prefix, quietly and without a display."""
    return {
        "WINEPREFIX": str(prefix),
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree,mshtml=",  # no offer to install Mono and Gecko
    }


def keep_server(environment: dict[str, str]) -> None:
    """Start Wine's server for a minute more than its last client: a start takes seconds."""
    subprocess.run(
        ["wineserver", "--persistent=60"],
        env=environment,
        check=False,  # it may be running
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def run(prefix: Path, command: list[str]) -> int:
    """Run a command, pass on what it writes, and give its exit status."""
    environment = {**os.environ, **wine_settings(prefix)}
    keep_server(environment)
    output, its_output = os.pipe()
    process = subprocess.Popen(
        ["wine", *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=its_output,
        stderr=subprocess.STDOUT,
    )
    os.close(its_output)
    os.set_blocking(output, False)
    ended = os.pidfd_open(process.pid)
    over = False
    while not over:
        ready, _, _ = select.select([output, ended], [], [])
        over = ended in ready  # what it has written before is in the pipe
        over |= not pass_on(output)
    return process.wait()


def pass_on(output: int) -> bool:
    """Write what a pipe holds to the standard output; False at its end."""
    while True:
        try:
            data = os.read(output, 65536)
        except BlockingIOError:
            return True
        if not data:
            return False
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
