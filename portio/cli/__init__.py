"""The command line: ``python -m portio info | copy | echo``.

Each command is a module with two functions: ``add_arguments`` describes its
arguments, ``run`` carries it out and returns the exit status.  Everything that
can go wrong outside the program (a path that is missing, a full disk, an
address in use) is raised as an OSError or a CommandError, and becomes one line
on standard error and exit status 1 here, in one place.  Exit status 2 means a
wrong command line; 128 + N means stopped by signal N, as shells have it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from portio.cli import copy, echo, info
from portio.cli.common import CommandError, Stopped, describe

__all__ = ["main"]

SIGPIPE = 13  # also where the signal module does not know it

COMMANDS = {"info": info, "copy": copy, "echo": echo}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` default to those of the process."""
    parsed = _parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # of standard output: its reader, `head` for one, has had enough
        _discard_output()
        return 128 + SIGPIPE
    except (CommandError, OSError, MemoryError) as error:
        print(f"portio {parsed.command}: {describe(error)}", file=sys.stderr)
        _discard_output()
        return 1
    except Stopped as stopped:
        print(f"portio {parsed.command}: {stopped}", file=sys.stderr)
        return 128 + stopped.signal
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m portio",
        description="Completion ports: what this system offers, and two programs that use them.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        description = module.__doc__ or ""
        command = commands.add_parser(
            name,
            help=description.partition("\n")[0].rstrip("."),
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _discard_output() -> None:
    """Let the interpreter's last flush succeed where standard output has failed for good."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
