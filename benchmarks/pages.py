"""What the documentation shows of a run: pages of Markdown, and the plots in them.

``results.md`` is a part of a page, with headings of the third level; ``tables.md`` is a page.
Both are made anew from the JSON each time, and nothing is written into them by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import plots, report
from benchmarks.goals import Verdict, summary
from benchmarks.plots import Plot, missing
from benchmarks.results import Run

__all__ = ["missing", "write"]

RESULTS, TABLES = "results.md", "tables.md"
NOTE = "<!-- Made by `python -m benchmarks`; to be made again, not edited. -->"
READING = (
    "The ratio is that of the medians. The middle half is that of the ratios of the single "
    "repetitions: where it has the bound of a goal between its ends, the next run may decide "
    "otherwise. `disturbed` says that other programs used more than a tenth of the processors "
    "meanwhile."
)
GOALS_ALT = "How many times better than its bound each ratio is, or worse."
BARS = "Bars are medians, and the line on a bar is the middle half of the repetitions."


def write(run: Run, verdicts: Sequence[Verdict], directory: Path, source: Path) -> None:
    """Write the pages and the plots into the directory; ``source`` is the JSON of the run."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = plots.draw_all(run, verdicts, directory)
    (directory / RESULTS).write_text(_results(run, verdicts, drawn), encoding="utf-8")
    title = f"# All figures of the run\n\nFrom `{source.name}`."
    tables = "\n\n".join([NOTE, title, report.conditions(run), report.tables(run)])
    (directory / TABLES).write_text(tables, encoding="utf-8")


def _results(run: Run, verdicts: Sequence[Verdict], drawn: Sequence[Plot]) -> str:
    parts = [NOTE, "### Conditions", report.conditions(run)]
    if verdicts:
        parts += ["### Goals", READING, report.goals(verdicts).rstrip()]
        if any(verdict.reached is not None for verdict in verdicts):
            parts.append(f"![{GOALS_ALT} {summary(verdicts)}.]({plots.GOALS})")
    if drawn:
        parts += ["### Plots", BARS]
    for plot in drawn:
        parts += [f"#### {plot.title}", f"![{plot.title}]({plot.file})"]
    return "\n\n".join(parts) + "\n"
