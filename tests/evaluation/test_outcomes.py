"""From solutions to results: what is counted, what is named, and how two sets of outcomes compare."""

from pathlib import Path
from typing import Any

import pytest

from psr.evaluation.comparison import compare_outcomes
from psr.evaluation.outcomes import grade_rows, summarize
from psr.files.jsonl import DataError, write_jsonl
from psr.prompts.encoder import Encoder
from psr.records import GoldProblem

SPENT = {"generated_tokens": 10, "prompt_tokens": 5}


def solved(solution: str, finished: bool = True, trace: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"solution": solution, "finished": finished, "answer": None, "trace": trace or {}, **SPENT}


def test_solutions_are_graded_and_counted(encoder: Encoder):
    problems = [GoldProblem(str(i), "3+4", answer) for i, answer in enumerate(["7", "7", "7", ""])]
    rows = [
        solved("3+4=7\n7 \\boxed{7}"),
        solved("\\boxed{8}"),
        solved("\\boxed{7}", finished=False),
        solved("3+4=7\n7\n7\n\\boxed{7}"),
    ]
    outcomes = grade_rows(rows, problems, encoder)
    assert [one["correct"] for one in outcomes] == [True, False, False, None]
    assert [one["steps"] for one in outcomes] == [2, 1, 1, 4]
    figures = summarize(outcomes)
    assert (figures["problems"], figures["graded"], figures["no_gold"]) == (4, 3, ["3"])
    assert figures["accuracy"] == pytest.approx(1 / 3)
    assert figures["accuracy_stderr"] == pytest.approx((1 / 3 * 2 / 3 / 3) ** 0.5)
    assert (figures["finished"], figures["steps"]) == (0.75, pytest.approx(7 / 3))
    assert figures["histogram"] == {"1": 1, "2": 1, "4": 1}
    assert "average" not in figures


def test_a_majority_has_its_average_over_the_samples(encoder: Encoder):
    trace = {"votes": {"7": 2}, "solutions": ["\\boxed{7}", "\\boxed{8}", "\\boxed{7}", "\\boxed{7}"]}
    rows = [
        solved("\\boxed{7}", trace={**trace, "finished": [True, True, True, False]}),
        solved("\\boxed{8}", trace={**trace, "solutions": ["\\boxed{8}"] * 4, "finished": [True] * 4}),
    ]
    outcomes = grade_rows(rows, [GoldProblem("a", "3+4", "7"), GoldProblem("b", "3+4", "7")], encoder)
    assert outcomes[0]["samples"] == [True, False, True, False]
    figures = summarize(outcomes)
    assert (figures["accuracy"], figures["average"], figures["any"]) == (0.5, 0.25, 0.5)
    assert figures["average_stderr"] == pytest.approx(0.25)  # two problems, 0.5 and 0: deviation 0.354 over root 2


def test_nothing_graded_is_no_accuracy(encoder: Encoder):
    figures = summarize(grade_rows([solved("", finished=False)], [GoldProblem("a", "?", "")], encoder))
    assert (figures["accuracy"], figures["accuracy_stderr"], figures["graded"]) == (None, None, 0)


def outcomes_file(path: Path, correct: dict[str, bool | None]) -> Path:
    write_jsonl(path, [{"id": name, "correct": right} for name, right in correct.items()])
    return path


def test_two_results_are_compared_problem_by_problem(tmp_path: Path):
    right = {str(i): i % 2 == 0 for i in range(100)}
    a = outcomes_file(tmp_path / "a.jsonl", {**right, "none": None})
    better = {name: value or i < 20 for i, (name, value) in enumerate(right.items())}
    b = outcomes_file(tmp_path / "b.jsonl", {**dict(reversed(better.items())), "none": None})
    row = compare_outcomes(a, b)
    assert (row["problems"], row["only_a"], row["only_b"]) == (100, 0, 10)
    assert row["difference"] == pytest.approx(0.1) and 0 < row["low"] < 0.1 < row["high"] < 0.2
    back = compare_outcomes(b, a)
    assert back["difference"] == pytest.approx(-0.1) and back["high"] < 0


def test_results_on_other_problems_are_refused(tmp_path: Path):
    a = outcomes_file(tmp_path / "a.jsonl", {"1": True, "2": False})
    b = outcomes_file(tmp_path / "b.jsonl", {"1": True, "3": False})
    with pytest.raises(DataError, match="2 differ, for instance '2'"):
        compare_outcomes(a, b)
    none = outcomes_file(tmp_path / "none.jsonl", {"1": None})
    with pytest.raises(DataError, match="no problem has a reference answer"):
        compare_outcomes(none, none)
