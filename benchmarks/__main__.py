"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import machine, report
from benchmarks.model import Context
from benchmarks.programs import BUILD, HERE
from benchmarks.runner import run_work
from benchmarks.works import WORKS

REPETITIONS = 7


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure portio against its peers.  The exit status is 1 when a program fails; "
        "a goal that is not reached is a result, not a failure.",
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
        help="where to write every repetition, and the tables beside it (%(default)s)",
    )
    parser.add_argument("--list", action="store_true", help="list works and cases, and end")
    options = parser.parse_args()
    known = {work.name for work in WORKS.values()} | set(_case_names())
    if unknown := set(options.only) - known:
        parser.error(f"no such work or case: {', '.join(sorted(unknown))} (see --list)")
    if options.repetitions is None:
        options.repetitions = 1 if options.quick else REPETITIONS
    if options.repetitions < 1:
        parser.error("at least one repetition")
    return options


def _case_names() -> list[str]:
    return [f"{work.name}/{case.name}" for work in WORKS.values() for case in work.cases]


def main() -> int:
    """Measure, print the tables, and write both files."""
    options = parse()
    if options.list:
        print("\n".join(_case_names()))
        return 0
    results = []
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        context = Context(Path(scratch), quick=options.quick)
        for work in WORKS.values():
            cases = [
                case
                for case in work.cases
                if not options.only or {work.name, f"{work.name}/{case.name}"} & set(options.only)
            ]
            if cases:
                results.append(run_work(work, context, options.repetitions, cases, options.subject))
    what = machine.describe()
    text = report.markdown(what, results, options.repetitions, quick=options.quick)
    document = report.document(what, results, options.repetitions, quick=options.quick)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    options.json.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    return 1 if any(case.failed for result in results for case in result.cases) else 0


if __name__ == "__main__":
    sys.exit(main())
