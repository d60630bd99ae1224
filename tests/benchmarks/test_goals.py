"""The goals name what is measured, and are judged by what was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import goals, report, results
from benchmarks.__main__ import main
from benchmarks.goals import AT_LEAST, AT_MOST, GOALS, Constant, Figure, Goal, Verdict, evaluate
from benchmarks.model import Case, Metric, Work
from benchmarks.report import TIMES
from benchmarks.results import CaseResult, FormatError, Run, WorkResult
from benchmarks.works import WORKS

OURS = Figure("echo", "50x64B", "ours", "cpu")
THEIRS = replace(OURS, subject="theirs")
GOAL = Goal("an echo", OURS, THEIRS, AT_MOST, 1.5)


def run_of(
    figures: dict[str, list[float]], *, quick: bool = False, disturbance: float = 0.0
) -> Run:
    """A run of one case: the CPU time of each subject, by repetition."""
    case = CaseResult(Case("50x64B", "50 connections", {}), disturbance=disturbance)
    for subject, values in figures.items():
        for value in values:
            case.add(subject, {"cpu": value})
    return Run({"date": "today"}, 3, quick, [WorkResult(WORKS["echo"], [case])])


def judge(goal: Goal, figures: dict[str, list[float]], **options: bool | float) -> Verdict:
    (verdict,) = evaluate(run_of(figures, **options), [goal])
    return verdict


@pytest.mark.parametrize(
    ("sense", "bound", "word"),
    [
        (AT_MOST, 2.0, "pass"),
        (AT_MOST, 1.999, "short"),
        (AT_LEAST, 2.0, "pass"),
        (AT_LEAST, 2.001, "short"),
        (AT_LEAST, None, "told"),
        (AT_MOST, None, "told"),
    ],
)
def test_the_bound_itself_is_enough(sense: str, bound: float | None, word: str) -> None:
    goal = replace(GOAL, sense=sense, bound=bound)
    verdict = judge(goal, {"ours": [6.0], "theirs": [3.0]})
    assert verdict.ratio == 2
    assert verdict.text == word
    assert verdict.reached is {"pass": True, "short": False, "told": None}[word]


def test_medians_are_compared_and_the_middle_half_is_that_of_the_repetitions() -> None:
    ours, theirs = [1.0, 2.0, 3.0, 4.0, 500.0], [2.0, 2.0, 2.0, 2.0, 2.0]
    verdict = judge(GOAL, {"ours": ours, "theirs": theirs})
    assert (verdict.ratio, verdict.middle) == (1.5, (1.0, 2.0))
    # Each repetition is compared with its neighbour: what slows both down is no spread.
    drifting = judge(GOAL, {"ours": [2.0, 4.0, 8.0], "theirs": [1.0, 2.0, 4.0]})
    assert (drifting.ratio, drifting.middle) == (2.0, (2.0, 2.0))


def test_a_constant_may_be_the_reference() -> None:
    goal = Goal("a little", OURS, Constant("4 of them", 4), AT_MOST, 1.0)
    assert goal.wanted == f"{AT_MOST} 1 {TIMES} 4 of them"
    assert judge(goal, {"ours": [2.0, 3.0, 9.0]}).ratio == 0.75
    assert judge(goal, {"ours": [5.0]}).text == "short"


def test_who_was_not_measured_is_named() -> None:
    run = run_of({"ours": [1.0]})
    case = run.results[0].cases[0]
    assert evaluate(run, [GOAL])[0].text == "not measured: theirs is not in this run"
    case.unavailable["theirs"] = "uvloop is not installed"
    assert evaluate(run, [GOAL])[0].text == "not measured: uvloop is not installed"
    del case.unavailable["theirs"]
    case.failed["theirs"] = "out of luck"
    case.add("theirs", {"cpu": 1.0})  # a repetition before it failed is not enough
    verdict = evaluate(run, [GOAL])[0]
    assert verdict.text == "not measured: theirs failed: out of luck"
    assert verdict.reached is None
    elsewhere = replace(GOAL, measured=replace(OURS, case="500x64B"))
    assert evaluate(run, [elsewhere])[0].text == "not measured: echo/500x64B is not in this run"


def test_a_reference_of_nothing_is_no_ratio() -> None:
    assert "not measured" in judge(GOAL, {"ours": [1.0], "theirs": [0.0]}).text


def test_works_that_were_not_run_are_left_out() -> None:
    other = replace(GOAL, measured=Figure("posts", "1-to-1", "ours", "rate"))
    run = run_of({"ours": [1.0], "theirs": [1.0]})
    assert [one.goal for one in evaluate(run, [GOAL, other])] == [GOAL]


def test_doubts_are_told() -> None:
    figures = {"ours": [1.0], "theirs": [1.0]}
    assert judge(GOAL, figures, disturbance=goals.DISTURBED).text == "pass"
    assert judge(GOAL, figures, disturbance=0.2).text == "pass, disturbed"
    assert judge(GOAL, figures, disturbance=0.2, quick=True).text == "pass, quick, disturbed"


def test_the_table_has_goal_ratio_spread_and_verdict() -> None:
    run = run_of({"ours": [1.0, 2.0, 3.0], "theirs": [2.0, 2.0, 2.0]})
    missing = replace(GOAL, reference=replace(OURS, subject="nobody"))
    tight = replace(GOAL, bound=0.5)
    text = report.goals(evaluate(run, [GOAL, tight, missing]))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:5]]
    assert rows == [
        ["an echo", "ours", f"{AT_MOST} 1.5 {TIMES} theirs", "pass", "1.00", "0.75 to 1.25"],
        ["an echo", "ours", f"{AT_MOST} 0.5 {TIMES} theirs", "short", "1.00", "0.75 to 1.25"],
        [
            *("an echo", "ours", f"{AT_MOST} 1.5 {TIMES} nobody"),
            *("not measured: nobody is not in this run", "-", "-"),
        ],
    ]
    assert text.splitlines()[-1] == "1 pass, 1 short, 1 not measured."


def test_a_single_repetition_has_no_spread() -> None:
    text = report.goals(evaluate(run_of({"ours": [3.0], "theirs": [2.0]}), [GOAL]))
    assert [cell.strip() for cell in text.splitlines()[2].split("|")[5:7]] == ["1.50", "-"]


def figures_of_the_goals() -> list[Figure]:
    sides = [side for goal in GOALS for side in (goal.measured, goal.reference)]
    return list(dict.fromkeys(side for side in sides if isinstance(side, Figure)))


@pytest.mark.parametrize("side", figures_of_the_goals(), ids=lambda one: f"{one.case}-{one}")
def test_every_side_of_a_goal_is_measured(side: Figure) -> None:
    work = WORKS[side.work]
    (case,) = [case for case in work.cases if case.name == side.case]
    assert side.subject in [subject.name for subject in work.subjects_of(case)]
    assert side.metric in [metric.key for metric in work.metrics]


def test_subjects_of_a_work_have_different_names() -> None:
    for work in WORKS.values():
        names = [subject.name for subject in work.subjects]
        assert len(names) == len(set(names)), work.name


def test_a_saved_run_gives_the_same_verdicts(tmp_path: Path) -> None:
    run = run_of({"ours": [1.25e-6, 2.5e-6], "theirs": [1 / 3e6, 2.0]}, quick=True, disturbance=0.5)
    case = run.results[0].cases[0]
    case.failed["one"], case.unavailable["two"] = "why", "why not"
    file = tmp_path / "new" / "run.json"
    results.save(run, file)
    loaded = results.load(file, [*WORKS.values()])
    assert results.document(loaded) == results.document(run)
    assert loaded.results[0].work is WORKS["echo"]
    (before,), (after,) = evaluate(run, [GOAL]), evaluate(loaded, [GOAL])
    assert after.text == before.text
    assert after.ratio == pytest.approx(before.ratio, rel=1e-4)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}'])
def test_another_file_is_refused(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.json"
    file.write_text(content)
    with pytest.raises(FormatError, match=r"run\.json"):
        results.load(file, [*WORKS.values()])
    assert main(["goals", str(file)]) != 0
    assert "run.json" in capsys.readouterr().err


def test_a_work_that_is_gone_is_refused(tmp_path: Path) -> None:
    echo = WORKS["echo"]
    gone = Work("gone", "", "", (), (), (Metric("cpu", ""),), (), echo.measure)
    run = replace(run_of({}), results=[WorkResult(gone)])
    results.save(run, tmp_path / "run.json")
    with pytest.raises(FormatError, match="gone"):
        results.load(tmp_path / "run.json", [echo])


def test_the_command_prints_the_goals_of_a_saved_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    goal = next(one for one in GOALS if one.measured.work == "echo" and one.sense == AT_MOST)
    assert isinstance(goal.reference, Figure)
    assert goal.bound is not None
    figures = {goal.measured.subject: [goal.bound * 3.0], goal.reference.subject: [3.0]}
    results.save(run_of(figures), tmp_path / "run.json")
    assert main(["goals", str(tmp_path / "run.json")]) == 0
    told = capsys.readouterr().out
    (row,) = [line for line in told.splitlines() if " pass " in line]
    assert goal.title in row
    assert goal.wanted in row
    assert f" {goal.bound:.2f} " in row
    assert "not in this run" in told
