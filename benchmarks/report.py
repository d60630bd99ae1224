"""The results as tables of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.goals import Verdict, summary
from benchmarks.model import Metric, Work
from benchmarks.results import CaseResult, Run, WorkResult
from benchmarks.statistics import median, ratio, spread

NOTHING = "-"
TIMES = "\N{MULTIPLICATION SIGN}"


def conditions(run: Run) -> str:
    """Say under which conditions the run was made, and how disturbed it was."""
    shares = [case.disturbance for result in run.results for case in result.cases]
    often = f"Medians of {run.repetitions} repetitions, interleaved."
    if run.repetitions == 1:
        often = "A single repetition: nothing tells how far the next would differ."
    parts = [
        "; ".join(f"{key}: {value}" for key, value in run.machine.items()) + ".",
        often,
    ]
    if shares:
        parts.append(
            f"Other programs used {median(shares):.0%} of the processors in the median case, "
            f"and {max(shares):.0%} in the worst."
        )
    text = "\n".join(parts)
    if run.quick:
        text += "\n\n**A quick run, to see that everything works: the figures mean nothing.**"
    return text


def tables(run: Run) -> str:
    """Give a table for each case, under headings of the second and third level."""
    parts = []
    for result in run.results:
        parts += [f"## {result.work.title}", result.work.notes]
        for case in result.cases:
            parts += [f"### {case.case.title}", *_case(result.work, case)]
        parts += _not_measured(result)
    return "\n\n".join(parts) + "\n"


def _case(work: Work, case: CaseResult) -> list[str]:
    main = work.metrics[0]
    references = [name for name in work.references if name in case.figures]
    header = ["", main.title, "±", *(metric.title for metric in work.metrics[1:])]
    header += [f"{TIMES} {name}" for name in references]
    rows = []
    for name in case.figures:
        values = case.values(name, main.key)
        row = [name, _figure(values, main), f"{spread(values):.0%}"]
        row += [_figure(case.values(name, metric.key), metric) for metric in work.metrics[1:]]
        for reference in references:
            found = ratio(values, case.values(reference, main.key))
            row.append(NOTHING if found is None else f"{found:.2f}")
        rows.append(row)
    parts = [table(header, rows)] if rows else []
    parts.append(f"Other programs used {case.disturbance:.0%} of the processors meanwhile.")
    return parts


def _not_measured(result: WorkResult) -> list[str]:
    """Say who is missing from the tables of a work, and why."""
    reasons: dict[str, list[str]] = {}
    for case in result.cases:
        for name, reason in case.unavailable.items():
            reasons.setdefault(reason, []).append(name)
        for name, reason in case.failed.items():
            reasons.setdefault(f"failed: {reason}", []).append(f"{name} ({case.case.name})")
    lines = [f"- {'; '.join(dict.fromkeys(who))}: {reason}" for reason, who in reasons.items()]
    return ["\n".join(["Not measured:", "", *lines])] if lines else []


def _figure(values: Sequence[float], metric: Metric) -> str:
    return f"{median(values) * metric.scale:,.{metric.digits}f}" if values else NOTHING


def goals(verdicts: Sequence[Verdict]) -> str:
    """Give the table of the goals, and a line that counts the verdicts."""
    rows = []
    for verdict in verdicts:
        goal, found = verdict.goal, verdict.ratio is not None
        rows.append(
            [
                goal.title,
                goal.measured.subject,
                goal.wanted,
                verdict.text,
                f"{verdict.ratio:.2f}" if found else NOTHING,
                _middle(verdict),
            ]
        )
    header = ["work", "subject", "goal", "verdict", "ratio", "middle half"]
    return f"{table(header, rows, left=4)}\n\n{summary(verdicts)}.\n"


def _middle(verdict: Verdict) -> str:
    """Give the middle half of the repetitions' ratios; of a single one there is none."""
    if len(verdict.each) < 2:
        return NOTHING
    low, high = verdict.middle
    return f"{low:.2f} to {high:.2f}"


def table(header: list[str], rows: list[list[str]], left: int = 1) -> str:
    """Give a table of Markdown that is aligned as text, too: the first columns to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        shown = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(shown)} |"

    rules = [
        "-" * width if index < left else "-" * (width - 1) + ":"
        for index, width in enumerate(widths)
    ]
    return "\n".join([line(header), line(rules), *map(line, rows)])
