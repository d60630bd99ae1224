"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import goals, machine, pages, report, results
from benchmarks.model import Context
from benchmarks.programs import BUILD, HERE
from benchmarks.results import Run
from benchmarks.runner import run_work
from benchmarks.works import WORKS

REPETITIONS = 7
EPILOG = """
'%(prog)s goals FILE' prints the table of the goals again from the JSON of a run, and
'%(prog)s plots FILE DIRECTORY' makes its plots and pages.
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line of a run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure portio against its peers.  The exit status is 1 when a program fails; "
        "a goal that is not reached is a result, not a failure.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one short repetition, to see that everything works; its figures mean nothing",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORK[/CASE]",
        help="a work, or one case of it; may be repeated",
    )
    parser.add_argument(
        "--subject",
        action="append",
        default=[],
        metavar="TEXT",
        help="measure only subjects whose name contains the text; may be repeated",
    )
    parser.add_argument(
        "--repetitions", type=int, metavar="N", help=f"{REPETITIONS}, or 1 with --quick"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        default=HERE / "results" / "results.json",
        help="where to write every repetition (%(default)s)",
    )
    parser.add_argument(
        "--plots",
        type=Path,
        metavar="DIRECTORY",
        help="where to make the plots, and the pages that show them and the tables",
    )
    parser.add_argument("--list", action="store_true", help="list works and cases, and end")
    options = parser.parse_args(arguments)
    known = {work.name for work in WORKS.values()} | set(_case_names())
    if unknown := set(options.only) - known:
        parser.error(f"no such work or case: {', '.join(sorted(unknown))} (see --list)")
    if options.repetitions is None:
        options.repetitions = 1 if options.quick else REPETITIONS
    if options.repetitions < 1:
        parser.error("at least one repetition")
    if options.plots and (reason := pages.missing()):
        parser.error(f"--plots: {reason}")  # now, and not after a quarter of an hour
    return options


def _case_names() -> list[str]:
    return [f"{work.name}/{case.name}" for work in WORKS.values() for case in work.cases]


def measure(options: argparse.Namespace) -> Run:
    """Run what the options choose."""
    # Ten thousand connections are twice as many descriptors as the usual limit.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    BUILD.mkdir(exist_ok=True)
    run = Run(machine.describe(), options.repetitions, options.quick, [])
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        context = Context(Path(scratch), quick=options.quick)
        for work in WORKS.values():
            cases = [
                case
                for case in work.cases
                if not options.only or {work.name, f"{work.name}/{case.name}"} & set(options.only)
            ]
            if cases:
                result = run_work(work, context, options.repetitions, cases, options.subject)
                run.results.append(result)
    return run


def run_all(arguments: list[str]) -> int:
    """Measure, write the files, and print the tables."""
    options = parse(arguments)
    if options.list:
        print("\n".join(_case_names()))
        return 0
    begin = time.monotonic()
    results.save(measure(options), options.json)
    print(f"{options.json}: {time.monotonic() - begin:.0f} s in all", file=sys.stderr)
    # What is shown comes from the file, now and whenever it is shown again.
    run = results.load(options.json, [*WORKS.values()])
    verdicts = goals.evaluate(run)
    print(report.conditions(run), report.tables(run), sep="\n\n")
    print("## Goals", report.goals(verdicts), sep="\n\n")
    if options.plots:
        pages.write(run, verdicts, options.plots, options.json)
    return 1 if run.failed else 0


def show_goals(arguments: list[str]) -> int:
    """Print the table of the goals from the JSON of a run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks goals")
    parser.add_argument("file", type=Path)
    options = parser.parse_args(arguments)
    run = results.load(options.file, [*WORKS.values()])
    print(report.conditions(run), report.goals(goals.evaluate(run)), sep="\n\n", end="")
    return 0


def make_plots(arguments: list[str]) -> int:
    """Make the plots and the pages from the JSON of a run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks plots")
    parser.add_argument("file", type=Path)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args(arguments)
    if reason := pages.missing():
        parser.error(reason)
    run = results.load(options.file, [*WORKS.values()])
    pages.write(run, goals.evaluate(run), options.directory, options.file)
    return 0


def main(arguments: list[str]) -> int:
    """Carry out the command; a run is what no command means."""
    commands = {"goals": show_goals, "plots": make_plots}
    try:
        if arguments and arguments[0] in commands:
            return commands[arguments[0]](arguments[1:])
        return run_all(arguments)
    except results.FormatError as error:
        print(f"python -m benchmarks: {error}", file=sys.stderr)
        return os.EX_DATAERR


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
