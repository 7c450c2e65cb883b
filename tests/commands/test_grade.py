"""`psr grade`: what it writes and says of predictions of any system, and that it agrees with the other commands."""

import subprocess
import sys
from pathlib import Path

import pytest

from psr.commands.grade import grade
from psr.evaluation.outcomes import grade_rows, summarize
from psr.files.jsonl import DataError, located_objects, write_jsonl
from psr.files.kinds import GoldRow
from psr.files.problems import gold_problem
from psr.files.rows import checked
from psr.prompts.encoder import Encoder

ROWS = [
    {"prediction": r"so \boxed{42}", "answer": "42", "model": "theirs"},
    {"prediction": "6 * 7 = 42\n#### 42", "answer": 42},
    {"prediction": "Thus the answer is 41.", "answer": "42"},
    {"prediction": r"\boxed{45\text{ hours}}", "answer": "45", "unit": "minute"},
    {"prediction": r"\boxed{4.25}", "answer": "4.2", "error": "1e-1"},
    {"prediction": r"\boxed{3, 1}", "answer": "1,3", "is_multiple_answer": True},
    {"prediction": r"\boxed{1}", "answer": ""},
    {"prediction": "nothing at all", "answer": "1"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "predictions.jsonl", ROWS)
    return tmp_path / "predictions.jsonl"


def test_every_line_comes_back_in_order_with_its_verdict(file: Path, capsys: pytest.CaptureFixture[str]):
    grade(file, file.with_name("graded.jsonl"))
    rows = [row for _, row in located_objects(file.with_name("graded.jsonl"))]
    assert [{name: row[name] for name in given} for row, given in zip(rows, ROWS, strict=True)] == ROWS
    assert [row["right"] for row in rows] == [True, False, False, False, True, True, None, False]
    assert [row["rule"] for row in rows[:5]] == ["text", "no answer", "no answer", "unit", "number"]
    shown = capsys.readouterr().out
    assert "accuracy: 42.9 (15.8-75.0)% of 7 right" in shown and "no reference answer, not counted: 1" in shown
    assert "43% of the finished solutions box no answer" in shown.replace("\n", " ")
    assert "hours" in shown and "worth reading" in shown


def test_answers_without_a_box_are_read_when_asked_and_counted_apart(file: Path, capsys: pytest.CaptureFixture[str]):
    grade(file, file.with_name("graded.jsonl"), without_box=True)
    rows = [row for _, row in located_objects(file.with_name("graded.jsonl"))]
    assert [row["right"] for row in rows] == [True, True, False, False, True, True, None, False]
    shown = capsys.readouterr().out
    assert "accuracy: 42.9" in shown and "with the 2 answers that were read without a box: 57.1" in shown


def test_solutions_are_graded_as_the_commands_that_solve_do(file: Path, encoder: Encoder):
    grade(file, file.with_name("graded.jsonl"))
    spent = {"generated_tokens": 1, "prompt_tokens": 1, "trace": {}, "answer": None, "finished": True}
    solved = [{"solution": row["prediction"], **spent} for row in ROWS]
    problems = [gold_problem(checked("a row", {"id": i, "problem": "?", **row}, GoldRow)) for i, row in enumerate(ROWS)]
    outcomes = grade_rows(solved, problems, encoder)
    theirs = [row for _, row in located_objects(file.with_name("graded.jsonl"))]
    assert [(one["correct"], one["rule"]) for one in outcomes] == [(row["right"], row["rule"]) for row in theirs]
    assert summarize(outcomes)["no_box"] == pytest.approx(3 / 8)


def test_it_needs_neither_torch_nor_transformers(file: Path):
    script = (
        "import sys; from pathlib import Path; from psr.commands.grade import grade; "
        f"grade(Path({str(file)!r})); print({{'torch', 'transformers', 'datasets', 'pyarrow'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "1"}, "line 1: field 'prediction' is missing"),
        ({"prediction": 5, "answer": "1"}, "line 1: field 'prediction' is 5: it must be a text"),
        ({"prediction": "1", "answer": "1", "error": "small"}, "error is 'small'"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: dict[str, object], message: str):
    write_jsonl(tmp_path / "bad.jsonl", [row])
    with pytest.raises(DataError, match=message):
        grade(tmp_path / "bad.jsonl")
