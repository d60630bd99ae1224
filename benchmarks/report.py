"""The results as tables of Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.model import Goal, Metric, Work
from benchmarks.runner import CaseResult, WorkResult
from benchmarks.statistics import median, ratio, spread

NOTHING = "-"
DISTURBED = 0.1  # of the processors used by others: too much to trust a verdict
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Verdict:
    """A goal, and what was measured."""

    work: Work
    goal: Goal
    measured: float | None  # None: the subject or its reference was not measured
    disturbance: float

    @property
    def reached(self) -> bool | None:
        """Tell whether the goal is reached, if that is known."""
        return None if self.measured is None else self.measured <= self.goal.limit

    @property
    def text(self) -> str:
        """Give the verdict, and whether others kept the machine too busy to trust it."""
        if self.reached is None:
            return "not measured"
        word = "pass" if self.reached else "short"
        return f"{word}, disturbed" if self.disturbance > DISTURBED else word


def verdicts(results: Sequence[WorkResult]) -> list[Verdict]:
    """Hold what was measured against the goals of the cases that were run."""
    return [
        Verdict(result.work, goal, _measured(case, goal, result.work.metrics[0]), case.disturbance)
        for result in results
        for goal in result.work.goals
        if (case := result.case(goal.case)) is not None
    ]


def _measured(case: CaseResult, goal: Goal, metric: Metric) -> float | None:
    values = case.values(goal.subject, metric.key)
    if not values:
        return None
    if goal.reference is None:
        return median(values) * metric.scale
    reference = case.values(goal.reference, metric.key)
    return ratio(values, reference) if reference else None


def markdown(
    machine: dict[str, object], results: Sequence[WorkResult], repetitions: int, *, quick: bool
) -> str:
    """Give the whole report."""
    parts = ["# Benchmarks", "; ".join(f"{key}: {value}" for key, value in machine.items())]
    parts.append(
        f"Medians of {repetitions} interleaved repetitions; ± is the median deviation from the "
        "median. Compare ratios, not times: times are this machine's."
    )
    if quick:
        parts.append("**A quick run, to see that everything works: the figures mean nothing.**")
    for result in results:
        parts += [f"## {result.work.title}", result.work.notes]
        for case in result.cases:
            parts += [f"### {case.case.title}", *_case(result.work, case)]
        parts += _not_measured(result)
    if goals := verdicts(results):
        parts += ["## Goals", _goals(goals)]
    return "\n\n".join(parts) + "\n"


def _case(work: Work, case: CaseResult) -> list[str]:
    main = work.metrics[0]
    references = [name for name in work.references if name in case.samples]
    header = ["", main.title, "±", *(metric.title for metric in work.metrics[1:])]
    header += [f"{TIMES} {name}" for name in references]
    rows = []
    for name in case.samples:
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
    return f"{median(values) * metric.scale:,.{metric.digits}f}"


def _goals(goals: Sequence[Verdict]) -> str:
    rows = []
    for verdict in goals:
        goal, metric = verdict.goal, verdict.work.metrics[0]
        if goal.reference is None:
            limit = f"{goal.limit:,.0f} ({metric.title})"
            measured = f"{verdict.measured:,.0f}" if verdict.measured is not None else NOTHING
        else:
            limit = f"{goal.limit:.1f} {TIMES} {goal.reference}"
            measured = f"{verdict.measured:.2f}" if verdict.measured is not None else NOTHING
        case = f"{verdict.work.name}/{goal.case}"
        rows.append([case, goal.subject, f"≤ {limit}", measured, verdict.text])
    return table(["work", "subject", "goal", "measured", ""], rows, left=3)


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


def document(
    machine: dict[str, object], results: Sequence[WorkResult], repetitions: int, *, quick: bool
) -> dict[str, object]:
    """Give everything that was measured, for a JSON file; times in seconds."""
    return {
        "format": 1,
        "machine": machine,
        "quick": quick,
        "repetitions": repetitions,
        "works": {
            result.work.name: {case.case.name: _case_document(case) for case in result.cases}
            for result in results
        },
        "goals": [
            {
                "work": verdict.work.name,
                "case": verdict.goal.case,
                "subject": verdict.goal.subject,
                "reference": verdict.goal.reference,
                "limit": verdict.goal.limit,
                "measured": verdict.measured,
                "reached": verdict.reached,
            }
            for verdict in verdicts(results)
        ],
    }


def _case_document(case: CaseResult) -> dict[str, object]:
    return {
        "title": case.case.title,
        "parameters": dict(case.case.parameters),
        "disturbance": case.disturbance,
        "unavailable": case.unavailable,
        "failed": case.failed,
        "subjects": {
            name: {
                "median": {key: median([one[key] for one in samples]) for key in samples[0]},
                "samples": samples,
            }
            for name, samples in case.samples.items()
        },
    }
