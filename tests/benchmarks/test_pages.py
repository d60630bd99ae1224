"""The pages and the plots that are made of a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import pages, plots
from benchmarks.goals import GOALS, evaluate
from benchmarks.plots import PLOTS
from benchmarks.results import CaseResult, Run, WorkResult
from benchmarks.works import WORKS


def whole_run() -> Run:
    """A run in which everybody measured the same thrice."""
    found = []
    for work in WORKS.values():
        result = WorkResult(work)
        for case in work.cases:
            measured = CaseResult(case)
            for subject in work.subjects_of(case):
                for value in (3.0, 1.0, 2.0):
                    measured.add(subject.name, {one.key: value for one in work.metrics})
            result.cases.append(measured)
        found.append(result)
    return Run({"date": "today"}, 3, False, found)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of a whole run: made once, because drawing takes a while."""
    if reason := plots.missing():
        pytest.skip(f"{reason}; it is in the group `bench`")
    directory = tmp_path_factory.mktemp("pages") / "performance"
    run = whole_run()
    pages.write(run, evaluate(run), directory, Path("run.json"))
    return directory


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_every_plot_shows_what_is_measured(plot: plots.Plot) -> None:
    work = WORKS[plot.work]
    assert set(plot.cases) <= {case.name for case in work.cases}
    assert plot.metric in [metric.key for metric in work.metrics]


def test_the_files_of_plots_are_different() -> None:
    files = [plot.file for plot in PLOTS]
    assert len({*files, plots.GOALS}) == len(files) + 1


def test_pages_have_every_goal_and_every_plot(directory: Path) -> None:
    assert len(evaluate(whole_run())) == len(GOALS)
    text = (directory / pages.RESULTS).read_text(encoding="utf-8")
    for goal in GOALS:
        assert goal.title in text
        assert goal.wanted in text
    for name in (plots.GOALS, *(plot.file for plot in PLOTS)):
        assert f"]({name})" in text
        assert ET.parse(directory / name).getroot().tag.endswith("svg")  # noqa: S314 - ours
    assert {file.name for file in directory.glob("*.svg")} == {
        plots.GOALS,
        *(plot.file for plot in PLOTS),
    }
    tables = (directory / pages.TABLES).read_text(encoding="utf-8")
    for work in WORKS.values():
        assert f"## {work.title}" in tables


def test_plots_name_the_subjects_and_their_medians(directory: Path) -> None:
    for plot in PLOTS:
        drawn = (directory / plot.file).read_text(encoding="utf-8")
        work = WORKS[plot.work]
        cases = [case for case in work.cases if case.name in plot.cases]
        for subject in {one for case in cases for one in work.subjects_of(case)}:
            assert f">{subject.name}<" in drawn
        (metric,) = [one for one in work.metrics if one.key == plot.metric]
        assert f"> {2.0 * metric.scale:,.{metric.digits}f}<" in drawn


def test_the_same_run_makes_the_same_files(directory: Path, tmp_path: Path) -> None:
    run = whole_run()
    plots.draw_goals(evaluate(run), tmp_path / plots.GOALS)
    for plot in PLOTS[:2]:
        assert plots.draw(run, plot, tmp_path / plot.file)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (directory / file.name).read_bytes()


def test_nothing_of_another_run_stays(directory: Path, tmp_path: Path) -> None:
    run = whole_run()
    directory = Path(shutil.copytree(directory, tmp_path / "performance"))
    (directory / "run.json").write_text("of the user")
    run.results = [one for one in run.results if one.work.name == "posts"]
    pages.write(run, evaluate(run), directory, Path("run.json"))
    assert {file.name for file in directory.glob("*.svg")} == {"posts.svg", plots.GOALS}
    text = (directory / pages.RESULTS).read_text(encoding="utf-8")
    assert "posts.svg" in text
    assert "echo" not in text
    assert (directory / "run.json").exists()
