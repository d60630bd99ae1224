"""Running a work: every repetition goes round all subjects before the next begins.

A disturbance that lasts for a while then falls on everybody, and the medians over the
repetitions leave it out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from benchmarks.machine import Disturbance
from benchmarks.model import Case, Context, Subject, Work
from benchmarks.programs import UnavailableError
from benchmarks.results import CaseResult, WorkResult
from benchmarks.subjects import missing


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
                result.add(subject.name, sample)
    result.disturbance = disturbance.share()
    return result
