"""The typed reader: no row of another shape gets through, and the message names line, field, value and remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from psr.curation.prm800k import read_trajectories
from psr.curation.sources import Source, read_source
from psr.evaluation.benchmarks import read_benchmark
from psr.evaluation.comparison import compare_outcomes
from psr.files.jsonl import DataError, write_jsonl
from psr.files.kinds import Worked
from psr.files.problems import read_gold_problems, read_problems
from psr.files.rows import read_rows
from psr.prompts.judged import read_pairs, read_scored

PROBLEM = {"id": "a", "problem": "3+4"}
GOLD = {**PROBLEM, "answer": "7"}
WORKED = {"problem": "3+4", "solution": "3+4=7"}
PAIR = {"problem": "3+4-5", "previous_steps": ["3+4=7"], "chosen": "7-5=2", "rejected": "7-5=3"}
SCORED = {"problem": "3+4", "previous_steps": [], "response": "3+4=7", "score": 5}
GRADED = {"id": "a", "correct": True}
RATED = {"problem": "x", "steps": [{"completions": [{"text": "s", "rating": 1, "chosen": True}]}]}
PRM800K = {"question": {"problem": "x"}, "label": {"steps": [{"completions": [{"text": "s"}], "chosen_completion": 0}]}}

Read = Callable[[Path], Any]
READERS: dict[str, tuple[Read, dict[str, Any]]] = {
    "problems": (read_problems, PROBLEM),
    "gold": (read_gold_problems, GOLD),
    "benchmark": (lambda path: read_benchmark(str(path)), GOLD),
    "worked": (lambda path: read_rows(path, Worked), WORKED),
    "pairs": (read_pairs, PAIR),
    "scored": (read_scored, SCORED),
    "graded": (lambda path: compare_outcomes(path, path), GRADED),
    "rated": (read_trajectories, RATED),
    "prm800k": (read_trajectories, PRM800K),
    "rated pairs": (read_trajectories, PAIR),
    "source": (lambda path: list(read_source(Source(str(path)))), WORKED),
}
TEXTS = {
    "problems": ["problem"],
    "gold": ["problem"],
    "benchmark": ["problem"],
    "worked": ["problem", "solution"],
    "pairs": ["problem", "chosen", "rejected"],
    "scored": ["problem", "response"],
    "rated": ["problem"],
    "rated pairs": ["problem", "chosen", "rejected"],
    "source": ["problem"],
}


@pytest.mark.parametrize("kind", READERS)
def test_a_row_of_the_kind_is_read(tmp_path: Path, kind: str):
    read, row = READERS[kind]
    write_jsonl(tmp_path / "rows.jsonl", [row])
    assert read(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind, fields in TEXTS.items() for field in fields])
@pytest.mark.parametrize("value", [None, 5, ["a text"], {"a": "text"}, True], ids=repr)
def test_a_field_that_is_no_text_is_named(tmp_path: Path, kind: str, field: str, value: Any):
    read, row = READERS[kind]
    write_jsonl(tmp_path / "rows.jsonl", [{**row, "id": "first"}, {**row, field: value}])
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 2: field '{field}' is .*: it must"):
        read(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind, fields in TEXTS.items() for field in fields])
@pytest.mark.parametrize("value", ["", " \n"], ids=repr)
def test_a_blank_text_is_named_but_where_a_model_may_have_written_nothing(
    tmp_path: Path, kind: str, field: str, value: str
):
    read, row = READERS[kind]
    write_jsonl(tmp_path / "rows.jsonl", [row, {**row, field: value}])
    if field in ("rejected", "response"):
        assert read(tmp_path / "rows.jsonl")
        return
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 2: field '{field}' is .*: it must hold some text"):
        read(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("pairs", {"previous_steps": "3+4=7"}, "field 'previous_steps' is '3\\+4=7': it must be a list"),
        ("pairs", {"previous_steps": ["3+4=7", None]}, "field 'previous_steps.1' is null: it must be a text"),
        ("pairs", {"previous_steps": [["3+4=7"]]}, "field 'previous_steps.0' is"),
        ("pairs", {"rejected": " 7-5=2 "}, "chosen and rejected are the same text"),
        ("pairs", {"explanations": "because"}, "field 'explanations' is 'because': it must be an object"),
        ("pairs", {"explanations": {"chosen_first": 1}}, "field 'explanations.chosen_first' is 1: it must be a text"),
        (
            "pairs",
            {"explanations": {"chosen_first": "so"}},
            "field 'explanations.rejected_first' is missing; the row has",
        ),
        ("pairs", {"granularity": "word"}, "field 'granularity' is 'word': it must be 'step' or 'response'"),
        ("scored", {"score": 6}, "field 'score' is 6: it must be 0, 1, 2, 3, 4 or 5"),
        ("scored", {"score": "5"}, "field 'score' is '5'"),
        ("scored", {"explanation": ["so"]}, "field 'explanation' is"),
        ("worked", {"answer": {"x": 1}}, "field 'answer' is {'x': 1}: it must be a text, a number or a list"),
        ("problems", {"id": None}, "field 'id' is null: it must be a text or a whole number"),
        ("problems", {"id": True}, "field 'id' is True"),
        ("problems", {"id": ""}, "field 'id' is ''"),
        ("gold", {"answer": None}, "field 'answer' is missing, or null"),
        ("gold", {"is_multiple_answer": "no"}, "field 'is_multiple_answer' is 'no': it must be true or false"),
        ("graded", {"correct": 1}, "field 'correct' is 1: it must be true or false"),
        ("rated", {"steps": [{"completions": [{"text": "s", "rating": 2}]}]}, "rating' is 2: it must be -1, 0 or 1"),
        ("rated", {"steps": "s"}, "field 'steps' is 's': it must be a list"),
        ("prm800k", {"label": {"steps": [{"completions": [], "chosen_completion": 0}]}}, "chosen_completion is 0"),
        ("prm800k", {"question": "x"}, "field 'question' is 'x': it must be an object"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, kind: str, change: dict[str, Any], message: str):
    read, row = READERS[kind]
    write_jsonl(tmp_path / "rows.jsonl", [{**row, **change}])
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 1: .*{message}"):
        read(tmp_path / "rows.jsonl")


def test_a_null_in_an_optional_field_is_an_absent_field(tmp_path: Path):
    nothing = {"explanations": None, "granularity": None, "id": None}
    write_jsonl(tmp_path / "pairs.jsonl", [{**PAIR, **nothing}])
    assert read_pairs(tmp_path / "pairs.jsonl") == [PAIR]
    write_jsonl(tmp_path / "scored.jsonl", [{**SCORED, "explanation": None}])
    assert read_scored(tmp_path / "scored.jsonl") == [SCORED]


def test_a_number_that_no_float_can_hold_is_an_answer_like_any_other(tmp_path: Path):
    write_jsonl(tmp_path / "gold.jsonl", [{**GOLD, "answer": 10**400}])
    assert [one.answer for one in read_gold_problems(tmp_path / "gold.jsonl")] == [f"1{'0' * 400}"]


def test_parquet_is_read_by_the_same_rules(tmp_path: Path):
    pq.write_table(pa.Table.from_pylist([PAIR, {**PAIR, "chosen": " "}]), tmp_path / "pairs.parquet")
    with pytest.raises(DataError, match=r"pairs\.parquet, row 2: field 'chosen' is ' ': it must hold some text"):
        read_pairs(tmp_path / "pairs.parquet")
    whole = (tmp_path / "pairs.parquet").read_bytes()
    (tmp_path / "pairs.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"pairs\.parquet: not a Parquet file"):
        read_pairs(tmp_path / "pairs.parquet")


@pytest.mark.parametrize("error", ["nan", "-1", "inf", "about 1"])
def test_a_tolerance_is_a_number_that_can_be_one(tmp_path: Path, error: str):
    write_jsonl(tmp_path / "gold.jsonl", [{**GOLD, "error": error}])
    with pytest.raises(DataError, match=f"error is '{error}', not a tolerance"):
        read_gold_problems(tmp_path / "gold.jsonl")
