"""Counts the instructions of the hot paths and compares them with the record."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import portio.backends
from benchmarks.guard.paths import BATCH, PATHS

RECORD = Path(__file__).with_name("record.json")
ROUNDS = 40, 140  # the difference of two runs leaves out everything that is done once
TOLERANCE = 0.05
ENGINE = re.compile(r"/portio/backends/_\w+\.(abi3|cpython)[^/]*\.so$")

Counts = dict[str, float]


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard",
        description="Fails when a hot path takes more instructions than the record says, "
        f"by more than {TOLERANCE:.0%}.",
    )
    parser.add_argument("--update", action="store_true", help="write the record anew")
    parser.add_argument(
        "--backend",
        action="append",
        choices=[name for name, status in portio.backends.available().items() if status.available],
        help="only this one; may be repeated",
    )
    return parser.parse_args()


def run(name: str, backend: str, rounds: int) -> Counts:
    """Instructions of a whole run, in the engine and elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", "--"]
        command += [sys.executable, "-m", "benchmarks.guard.paths", name, backend, str(rounds)]
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not profile.exists():
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        return attribute(profile.read_text(encoding="utf-8", errors="replace"))


def attribute(profile: str) -> Counts:
    """Split a profile's instructions by the library that executed them.

    Lines of callgrind's format: ``ob=(ID) FILE`` names the library of what follows,
    ``calls=…`` says that the next line counts a callee and is not the function's own,
    and a line of two numbers is a place and its instructions.
    """
    names: dict[str, str] = {}
    counts = {"engine": 0.0, "python": 0.0}
    where = "python"
    callee = False
    for line in profile.splitlines():
        if line.startswith("ob="):
            number, _, file = line[3:].partition(" ")
            if file:
                names[number] = file
            where = "engine" if ENGINE.search(names[number]) else "python"
        elif line.startswith(("cob=", "cfi=", "cfl=", "cfn=")):
            if line.startswith("cob="):
                number, _, file = line[4:].partition(" ")
                if file:
                    names[number] = file
        elif line.startswith("calls="):
            callee = True
        elif line and (line[0].isdigit() or line[0] in "+-*"):
            if callee:
                callee = False
            elif len(numbers := line.split()) > 1:
                counts[where] += int(numbers[1])
    return counts


def measure(name: str, backend: str) -> Counts:
    """Instructions for each operation of a path."""
    few, many = (run(name, backend, rounds) for rounds in ROUNDS)
    walked = (ROUNDS[1] - ROUNDS[0]) * BATCH
    return {where: (many[where] - few[where]) / walked for where in few}


def main() -> None:
    """Measure everything, print it, and compare or record."""
    options = parse()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind, which counts the instructions, is not installed")
    version = f"{platform.machine()} CPython {sys.version_info.major}.{sys.version_info.minor}"
    records: dict[str, dict[str, Counts]] = {}
    if RECORD.exists():
        records = json.loads(RECORD.read_text(encoding="utf-8"))
    known = records.get(version, {})
    if not known and not options.update:
        sys.exit(f"{RECORD.name} has nothing for {version}; --update makes a record")
    statuses = portio.backends.available().items()
    backends = options.backend or [name for name, status in statuses if status.available]
    run("reference", backends[0], 1)  # leaves compiled files behind
    unit = measure("reference", backends[0])["python"]
    found: dict[str, Counts] = {}
    worse = []
    print(f"{version}; the reference takes {unit:,.0f} instructions")
    print(f"{'path':24} {'engine':>8} {'recorded':>8}   {'python':>8} {'recorded':>8}")
    for backend in backends:
        for name in PATHS:
            if name == "reference":
                continue
            path = f"{backend} {name}"
            counts = measure(name, backend)
            counts = {
                "engine": round(counts["engine"]),
                "python": round(counts["python"] / unit, 2),
            }
            found[path] = counts
            former = known.get(path, {})
            cells = [(f"{counts[where]:,}", f"{former.get(where, '-')}") for where in counts]
            print(
                f"{path:24} " + "   ".join(f"{new:>8} {old:>8}" for new, old in cells), flush=True
            )
            for where, count in counts.items():
                if where in former and count > former[where] * (1 + TOLERANCE):
                    worse.append(f"{path}: {where} {former[where]} → {count}")
    if options.update:
        records[version] = {**known, **found}
        text = json.dumps(records, indent=2, sort_keys=True)
        RECORD.write_text(text + "\n", encoding="utf-8")
    elif worse:
        sys.exit("more instructions than recorded:\n" + "\n".join(worse))


if __name__ == "__main__":
    main()
