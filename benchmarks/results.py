"""The results of a run, in memory and as the JSON that is kept of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.model import Case, Work
from benchmarks.programs import Sample

FORMAT = 2
DIGITS = 5  # that are kept of a figure: far more than one repetition is worth


class FormatError(Exception):
    """A file is not the JSON of a run, or not of this version's."""


@dataclass
class CaseResult:
    """All repetitions of one case; who could not be measured, and why."""

    case: Case
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    disturbance: float = 0.0

    def add(self, subject: str, sample: Sample) -> None:
        """Add a repetition of a subject."""
        columns = self.figures.setdefault(subject, {})
        for metric, value in sample.items():
            columns.setdefault(metric, []).append(value)

    def values(self, subject: str, metric: str) -> list[float]:
        """Give one figure of a subject, by repetition; nothing if it was not measured."""
        return self.figures.get(subject, {}).get(metric, [])

    def reason(self, subject: str) -> str | None:
        """Say why the subject was not measured, if that is known."""
        if subject in self.failed:
            return f"{subject} failed: {self.failed[subject]}"
        return self.unavailable.get(subject)


@dataclass
class WorkResult:
    """All cases of one work."""

    work: Work
    cases: list[CaseResult] = field(default_factory=list)

    def case(self, name: str) -> CaseResult | None:
        """Give the case of that name, if it was measured."""
        return next((one for one in self.cases if one.case.name == name), None)


@dataclass
class Run:
    """Everything that was measured in one run, and the conditions."""

    machine: dict[str, str]
    repetitions: int
    quick: bool
    results: list[WorkResult]

    def case(self, work: str, name: str) -> CaseResult | None:
        """Give a case of a work, if it was measured."""
        found = (one for one in self.results if one.work.name == work)
        return next((case for one in found if (case := one.case(name))), None)

    @property
    def failed(self) -> bool:
        """Tell whether any program failed."""
        return any(case.failed for result in self.results for case in result.cases)


def document(run: Run) -> dict[str, Any]:
    """Give the run for a JSON file; times in seconds, memory in bytes."""
    return {
        "format": FORMAT,
        "quick": run.quick,
        "repetitions": run.repetitions,
        "machine": run.machine,
        "works": {
            result.work.name: {
                case.case.name: {
                    "title": case.case.title,
                    "parameters": dict(case.case.parameters),
                    "disturbance": round(case.disturbance, 3),
                    "unavailable": case.unavailable,
                    "failed": case.failed,
                    "subjects": {
                        subject: {metric: [*map(_rounded, values)] for metric, values in of.items()}
                        for subject, of in case.figures.items()
                    },
                }
                for case in result.cases
            }
            for result in run.results
        },
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def save(run: Run, file: Path) -> None:
    """Write the JSON file, a line for each subject."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_pretty(document(run), 6) + "\n", encoding="utf-8")


def _pretty(value: Any, levels: int, margin: str = "") -> str:
    """Give JSON whose first levels have a line for each item."""
    if levels == 0 or not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = margin + " "
    items = (
        f"{inner}{json.dumps(key, ensure_ascii=False)}: {_pretty(item, levels - 1, inner)}"
        for key, item in value.items()
    )
    return "{\n" + ",\n".join(items) + f"\n{margin}}}"


def load(file: Path, works: Sequence[Work]) -> Run:
    """Read the JSON file of a run of these works; FormatError if it is something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{file}: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FormatError(f"{file}: not the results of a run, or of another version")
    known = {work.name: work for work in works}
    results = []
    for name, cases in content["works"].items():
        if name not in known:
            raise FormatError(f"{file}: there is no work {name!r} any more")
        results.append(WorkResult(known[name], [*map(_case, cases, cases.values())]))
    return Run(content["machine"], content["repetitions"], content["quick"], results)


def _case(name: str, content: dict[str, Any]) -> CaseResult:
    return CaseResult(
        Case(name, content["title"], content["parameters"]),
        content["subjects"],
        content["unavailable"],
        content["failed"],
        content["disturbance"],
    )
