"""A whole file read, or copied: by dd and cp, and by Python's own means."""

from __future__ import annotations

import argparse
import mmap
import os
import resource
import shutil
import subprocess
from pathlib import Path

from benchmarks.measuring import Mark, files_arguments, print_sample, report, take_mark

EMPTY_RUNS = 5


def command(options: argparse.Namespace, source: str) -> list[str]:
    """Give the command line of dd or cp."""
    target = options.target if options.work == "copy" else os.devnull
    if options.how == "cp":
        return ["cp", source, target]
    line = ["dd", f"if={source}", f"of={target}", f"bs={options.block}", "status=none"]
    if options.direct:
        line.append("iflag=direct")
        if options.work == "copy":
            line.append("oflag=direct")
    return line


def timed(line: list[str]) -> Mark:
    """Run a program; give the time, and its processor time."""
    begin, before = take_mark(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(line, check=True)
    end, after = take_mark(), resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Mark(end.wall - begin.wall, used)


def by_command(options: argparse.Namespace) -> None:
    """Run the program; what it takes with an empty file, to be started above all, is left out."""
    empty = f"{options.target}.empty"
    Path(empty).touch()
    try:
        starts = [timed(command(options, empty)) for _ in range(EMPTY_RUNS)]
    finally:
        Path(empty).unlink()
    Path(options.target).unlink(missing_ok=True)
    whole = timed(command(options, options.source))
    print_sample(
        count=os.stat(options.source).st_size,
        wall=whole.wall - min(start.wall for start in starts),
        cpu=max(whole.cpu - min(start.cpu for start in starts), 0.0),
    )


def by_system_calls(options: argparse.Namespace) -> None:
    """Read into one buffer and write from it, as dd does."""
    begin = take_mark()
    memory = memoryview(mmap.mmap(-1, options.block))  # on a page, for direct I/O
    total = 0

    def opener(path: str, flags: int) -> int:
        return os.open(path, flags | (os.O_DIRECT if options.direct else 0), 0o644)

    with open(options.source, "rb", buffering=0, opener=opener) as source:
        if options.work == "copy":
            with open(options.target, "wb", buffering=0, opener=opener) as target:
                while count := source.readinto(memory):
                    total += count
                    if target.write(memory[:count]) != count:
                        raise OSError("a short write")
        else:
            while count := source.readinto(memory):
                total += count
    report(begin, total)


def by_shutil(options: argparse.Namespace) -> None:
    """Copy as the standard library does: on Linux, in the kernel."""
    begin = take_mark()
    shutil.copyfile(options.source, options.target)
    report(begin, os.stat(options.source).st_size)


HOW = {"dd": by_command, "cp": by_command, "python": by_system_calls, "shutil": by_shutil}


def main() -> None:
    """Read or copy, and print the measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--how", choices=HOW, required=True)
    options = files_arguments(parser)
    HOW[options.how](options)


if __name__ == "__main__":
    main()
