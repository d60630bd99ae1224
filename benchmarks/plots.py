"""Pictures of a run: what is shown, as data, and how it is drawn."""

from __future__ import annotations

import importlib
import importlib.util
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.goals import AT_MOST, Verdict
from benchmarks.model import Metric
from benchmarks.results import CaseResult, Run
from benchmarks.statistics import median, middle_half


@dataclass(frozen=True)
class Plot:
    """Bars for the subjects of a work, beside each other for its cases."""

    name: str  # of the file
    title: str
    work: str
    metric: str
    cases: tuple[str, ...]
    log: bool = False  # for what differs by more than a bar can show

    @property
    def file(self) -> str:
        """Give the name of the file."""
        return f"{self.name}.svg"


PLOTS = (
    Plot("echo-64B", "Echo of 64 B", "echo", "cpu", ("1x64B", "50x64B", "500x64B")),
    Plot("echo-16KiB", "Echo of 16 KiB", "echo", "cpu", ("50x16KiB", "500x16KiB")),
    Plot("latency", "One connection, to and fro", "echo", "p50", ("1x64B",)),
    Plot("threads", "Echo by several threads on one port", "threads", "rate", ("50x64B",)),
    Plot("accepts", "Accepting connections", "accepts", "rate", ("burst",)),
    Plot("idle", "Memory of a connection that waits", "idle", "memory", ("10000",)),
    Plot("idle-echo", "An echo among 10,000 connections", "idle", "cpu", ("10000",)),
    Plot(
        "reads",
        "Random reads of 4 KiB",
        "reads",
        "wall",
        ("random-1", "random-32", "random-128", "uncached-32"),
        log=True,
    ),
    Plot(
        "files",
        "Whole files",
        "files",
        "rate",
        ("read-cached", "read-cold", "copy-cached", "copy-cold"),
    ),
    Plot("posts", "Packets between threads", "posts", "wall", ("1-to-1", "4-to-4", "round-trip")),
)
GOALS = "goals.svg"

COLOURS = {"portio.trio": "#6baed6", "portio": "#2171b5", "C ": "#969696", "": "#fdae6b"}
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
PASS, SHORT = "#238b45", "#cb181d"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 8,
    "svg.fonttype": "none",  # letters, not their outlines: a tenth of the size
    "svg.hashsalt": "portio",  # the same figures make the same file
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def missing() -> str | None:
    """Say why nothing can be drawn, or None if it can."""
    return None if importlib.util.find_spec("matplotlib") else "matplotlib is not installed"


def draw(run: Run, plot: Plot, file: Path) -> bool:
    """Draw a plot into the file; nothing, and False, when the run has nothing of it."""
    cases = [case for name in plot.cases if (case := run.case(plot.work, name)) is not None]
    shown = {name for case in cases for name in case.figures if case.values(name, plot.metric)}
    if not shown:
        return False
    work = next(result.work for result in run.results if result.work.name == plot.work)
    metric = next(one for one in work.metrics if one.key == plot.metric)
    names = [subject.name for subject in work.subjects if subject.name in shown]
    names += sorted(shown - set(names))  # of an older run
    width, height = 2.6 + 2.1 * len(cases), 0.9 + 0.2 * len(names)
    with _figure(file, width, height) as figure:
        panels = figure.subplots(1, len(cases), sharey=True, squeeze=False)[0]
        for panel, case in zip(panels, cases, strict=True):
            _bars(panel, case, metric, names)
            panel.set_title(textwrap.fill(case.case.title, 30), fontsize=8)
            panel.set_xlabel(metric.title)
            if plot.log:
                panel.set_xscale("log")
                panel.minorticks_off()
        panels[0].set_ylim(-0.6, len(names) - 0.4)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].invert_yaxis()
    return True


def _bars(panel: Any, case: CaseResult, metric: Metric, names: Sequence[str]) -> None:
    """Draw the medians as bars, and the middle half of the repetitions as a line on each."""
    for row, name in enumerate(names):
        values = [value * metric.scale for value in case.values(name, metric.key)]
        if not values:
            continue
        middle = median(values)
        low, high = middle_half(values)
        panel.barh(row, middle, height=0.7, color=_colour(name))
        panel.plot([low, high], [row, row], color="black", linewidth=1)
        panel.annotate(
            f" {middle:,.{metric.digits}f}", (max(high, middle), row), va="center", fontsize=6
        )
    panel.margins(x=0.25)
    panel.tick_params(axis="y", length=0)


def _colour(subject: str) -> str:
    return next(colour for start, colour in COLOURS.items() if subject.startswith(start))


def draw_goals(verdicts: Sequence[Verdict], file: Path) -> bool:
    """Draw how far each goal is passed or missed; False when none was measured."""
    rows = [verdict for verdict in verdicts if verdict.reached is not None]
    if not rows:
        return False
    with _figure(file, 9.0, 0.9 + 0.2 * len(rows)) as figure:
        panel = figure.subplots()
        for row, verdict in enumerate(rows):
            middle, low, high = _margins(verdict)
            colour = PASS if verdict.reached else SHORT
            panel.plot([low, high], [row, row], color=colour, linewidth=2, alpha=0.5)
            panel.plot(middle, row, "o", color=colour, markersize=4)
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set_xscale("log")
        left, right = panel.get_xlim()
        ticks = [one for one in TICKS if left <= one <= right]
        panel.set_xticks(ticks, [f"{one:g}" for one in ticks])
        panel.minorticks_off()
        panel.set_ylim(-0.6, len(rows) - 0.4)
        panel.set_xlabel("short of the goal \N{LEFTWARDS ARROW} 1 \N{RIGHTWARDS ARROW} better")
        panel.set_yticks(range(len(rows)), [_label(one) for one in rows], fontsize=6)
        panel.grid(axis="y", linewidth=0.3)
        panel.invert_yaxis()
    return True


def _margins(verdict: Verdict) -> tuple[float, float, float]:
    """Give how many times better than its bound a ratio is, and its middle half."""
    bound, ratio = verdict.goal.bound, verdict.ratio
    assert bound is not None
    assert ratio is not None
    every = (ratio, *verdict.middle)
    middle, low, high = (
        bound / one if verdict.goal.sense == AT_MOST else one / bound for one in every
    )
    return middle, min(low, high), max(low, high)


def _label(verdict: Verdict) -> str:
    goal = verdict.goal
    return f"{goal.title}; {goal.measured.subject}: {goal.wanted}"


@contextmanager
def _figure(file: Path, width: float, height: float) -> Iterator[Any]:
    """Give a figure, saved to the file in the end; not pyplot's, which keeps every figure."""
    matplotlib = importlib.import_module("matplotlib")
    module = importlib.import_module("matplotlib.figure")
    with matplotlib.rc_context(STYLE):
        figure = module.Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(file, format="svg", metadata={"Date": None})


def draw_all(run: Run, verdicts: Sequence[Verdict], directory: Path) -> list[Plot]:
    """Draw what the run has figures for, and remove what was drawn of another run."""
    for file in (*(plot.file for plot in PLOTS), GOALS):
        (directory / file).unlink(missing_ok=True)
    draw_goals(verdicts, directory / GOALS)
    return [plot for plot in PLOTS if draw(run, plot, directory / plot.file)]
