"""The vocabulary of the benchmarks: works, their cases and their subjects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.programs import Program, Sample


@dataclass(frozen=True)
class Metric:
    """A column of the table: how a figure of the samples is shown."""

    key: str
    title: str
    scale: float = 1.0
    digits: int = 1


@dataclass(frozen=True)
class Case:
    """One way of doing a work; its name is unique in the work and short."""

    name: str
    title: str
    parameters: Mapping[str, int | str]


@dataclass(frozen=True)
class Subject:
    """Who is measured: a program with its options."""

    name: str
    program: Program
    needs: tuple[str, ...] = ()  # keys of subjects.REQUIREMENTS
    share: float = 1.0  # of the case's repeats: less than 1 for who would take too long
    cases: tuple[str, ...] = ()  # the cases that it does; all when empty
    buffer: int = 0  # bytes that it keeps for each connection to receive into


@dataclass(frozen=True)
class Context:
    """What a measurement is given beside its case and its subject."""

    scratch: Path  # a directory for the run
    quick: bool = False

    def count(self, full: float, subject: Subject) -> int:
        """Give how often the subject repeats what takes ``full`` repeats in a full run."""
        return max(1, int(full * subject.share * (0.02 if self.quick else 1)))


@dataclass(frozen=True)
class Work:
    """What is measured.  The first metric is the one that the tables make ratios of."""

    name: str
    title: str
    notes: str
    cases: tuple[Case, ...]
    subjects: tuple[Subject, ...]
    metrics: tuple[Metric, ...]
    references: tuple[str, ...]  # subjects that the others are compared with
    measure: Callable[[Context, Case, Subject], Sample]
    prepare: Callable[[Context], None] = field(default=lambda _: None)

    def subjects_of(self, case: Case) -> list[Subject]:
        """Give the subjects that can do the case."""
        return [one for one in self.subjects if not one.cases or case.name in one.cases]
