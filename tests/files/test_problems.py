"""Problem sources: the iterations read questions without answers, whatever a file holds."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from psr.files.jsonl import DataError, write_jsonl
from psr.files.problems import read_gold_problems, read_problems
from psr.records import GoldProblem, Problem

POISON = "POISON-4711"
ROWS = [
    {"id": 1, "problem": "3+4", "answer": POISON, "solution": f"3+4={POISON}", "steps": [POISON], "level": POISON},
    {"id": "b", "problem": "5-2", "answer": POISON, "solution": POISON},
]


def file(folder: Path, rows: list[dict[str, Any]]) -> Path:
    write_jsonl(folder / "problems.jsonl", rows)
    return folder / "problems.jsonl"


def test_a_problem_has_no_field_for_an_answer():
    assert {field.name for field in fields(Problem)} == {"id", "problem"}


def test_answers_and_solutions_do_not_survive_reading(tmp_path: Path):
    problems = read_problems(file(tmp_path, ROWS))
    assert problems == [Problem("1", "3+4"), Problem("b", "5-2")]
    assert POISON not in json.dumps([asdict(problem) for problem in problems]) + repr(problems)
    assert not any(hasattr(problem, "answer") or hasattr(problem, "solution") for problem in problems)


def test_gold_problems_carry_the_answer_as_text(tmp_path: Path):
    path = file(tmp_path, [{"id": 1, "problem": "3+4", "answer": 7}])
    assert read_gold_problems(path) == [GoldProblem("1", "3+4", "7")]
    with pytest.raises(DataError, match="field 'answer' is missing"):
        read_gold_problems(file(tmp_path, [{"id": 1, "problem": "3+4"}]))


@pytest.mark.parametrize("read", [read_problems, read_gold_problems])
def test_an_id_that_occurs_twice_is_named(tmp_path: Path, read: Any):
    rows = [{"id": name, "problem": "p", "answer": "1"} for name in ("a", "b", "c", "b")]
    with pytest.raises(DataError, match=r"problems\.jsonl: the id 'b' occurs 2 times"):
        read(file(tmp_path, rows))
    with pytest.raises(DataError, match="the id '1' occurs 2 times"):
        read(file(tmp_path, [{**rows[0], "id": 1}, {**rows[0], "id": "1"}]))


def test_limit_takes_the_first_rows(tmp_path: Path):
    path = file(tmp_path, ROWS)
    assert [problem.id for problem in read_problems(path, limit=1)] == ["1"]
    assert len(read_problems(path, limit=5)) == 2


def test_a_row_without_a_problem_names_its_line(tmp_path: Path):
    with pytest.raises(DataError, match="line 2: field 'problem' is missing"):
        read_problems(file(tmp_path, [ROWS[0], {"id": "c"}]))


LONG = "x" * 3000


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": LONG, "problem": "p", "answer": "1"}] * 2,
        [{"id": LONG, "problem": "p", "answer": "1", "error": LONG}],
        [{LONG: 1, "problem": "p"}],
    ],
    ids=["the same id twice", "no tolerance", "a field missing"],
)
def test_of_what_is_long_a_message_quotes_the_beginning(tmp_path: Path, rows: list[dict[str, Any]]):
    write_jsonl(tmp_path / "problems.jsonl", rows)
    with pytest.raises(DataError, match="xxx") as error:
        read_gold_problems(tmp_path / "problems.jsonl")
    assert len(str(error.value)) < 500
