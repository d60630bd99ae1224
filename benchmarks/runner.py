"""Running a work: every repetition goes round all subjects before the next begins.

A disturbance that lasts for a while then falls on everybody, and the medians over the
repetitions leave it out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.machine import Disturbance
from benchmarks.model import Case, Context, Subject, Work
from benchmarks.programs import Sample, UnavailableError
from benchmarks.subjects import missing


@dataclass
class CaseResult:
    """All repetitions of one case; who could not be measured, and why."""

    case: Case
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    disturbance: float = 0.0

    def values(self, subject: str, metric: str) -> list[float]:
        """Give one figure of a subject, by repetition; nothing if it was not measured."""
        return [sample[metric] for sample in self.samples.get(subject, [])]


@dataclass
class WorkResult:
    """All cases of one work."""

    work: Work
    cases: list[CaseResult] = field(default_factory=list)

    def case(self, name: str) -> CaseResult | None:
        """Give the case of that name, if it was measured."""
        return next((one for one in self.cases if one.case.name == name), None)


def run_work(
    work: Work, context: Context, repetitions: int, cases: Sequence[Case], only: Sequence[str]
) -> WorkResult:
    """Measure the cases; ``only``, if not empty, are parts of the names of subjects."""
    work.prepare(context)
    result = WorkResult(work)
    for case in cases:
        begin = time.monotonic()
        subjects = [
            subject
            for subject in work.subjects_of(case)
            if not only or any(part in subject.name for part in only)
        ]
        result.cases.append(_run_case(work, context, case, subjects, repetitions))
        took = time.monotonic() - begin
        print(f"{work.name}/{case.name}: {took:.0f} s", file=sys.stderr)
    return result


def _run_case(
    work: Work, context: Context, case: Case, subjects: list[Subject], repetitions: int
) -> CaseResult:
    result = CaseResult(case)
    able = []
    for subject in subjects:
        if reason := missing(subject):
            result.unavailable[subject.name] = reason
        else:
            able.append(subject)
    disturbance = Disturbance()
    for _ in range(repetitions):
        for subject in able:
            if subject.name in result.failed:
                continue
            try:
                sample = work.measure(context, case, subject)
            except UnavailableError as error:
                result.failed[subject.name] = str(error)
                print(f"{work.name}/{case.name}: {subject.name}: {error}", file=sys.stderr)
            else:
                result.samples.setdefault(subject.name, []).append(sample)
    result.disturbance = disturbance.share()
    return result
