"""Sources: every origin gives rows of one schema; the same problem in train and a benchmark is found."""

from collections import Counter
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from psr.curation.decontamination import Benchmarks, normalized, without_benchmarks
from psr.curation.sources import BENCHMARKS, KNOWN, Source, read_source
from psr.files.jsonl import DataError, write_jsonl
from psr.files.tables import read_table, write_table
from tests.recipes.tiny_run import ROOT

DATA = ROOT.parent / "shared" / "data"
GSM8K = [
    {"question": "Ann has 3 hens.", "answer": "She has <<3=3>>3 hens.\nThey lay 3*2=<<3*2=6>>6 eggs.\n#### 6"},
    {"question": "And Bob?", "answer": "He has 1,200.\n#### 1,200"},
]


@pytest.fixture
def hub(tmp_path: Path) -> str:
    """A folder that `datasets` reads as it reads a set of the hub."""
    write_table(tmp_path / "set" / "train.parquet", GSM8K)
    write_table(tmp_path / "set" / "test.parquet", GSM8K[:1])
    return str(tmp_path / "set")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_set_is_read_by_its_columns(hub: str, streaming: bool):
    columns = {"problem": "question", "solution": "answer"}
    rows = list(read_source(Source(hub, columns=columns, answer="hashes", streaming=streaming)))
    assert [row["problem"] for row in rows] == ["Ann has 3 hens.", "And Bob?"]
    assert rows[0]["solution"] == "She has 3 hens.\nThey lay 3*2=6 eggs." and rows[0]["answer"] == "6"
    assert rows[1]["answer"] == "1,200"
    assert [row["id"] for row in rows] == [f"{hub}:train/0", f"{hub}:train/1"]
    assert len(list(read_source(Source(hub, split="test", columns=columns)))) == 1


def test_a_wrong_split_or_column_is_named(hub: str):
    with pytest.raises(DataError, match="split 'dev'"):
        list(read_source(Source(hub, split="dev")))
    with pytest.raises(DataError, match=r"no 'problems', only question, answer"):
        list(read_source(Source(hub, columns={"problem": "problems"})))
    with pytest.raises(DataError, match=r"source\.columns names the field 'question'"):
        Source(hub, columns={"question": "problem"})


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_file_of_rows_is_a_source(tmp_path: Path, ending: str):
    rows = [{"id": 7, "problem": "1+1?", "solution": r"So \boxed{2}.", "source": "us"}, {"id": 8, "problem": "x"}]
    write_table(tmp_path / f"rows{ending}", rows)
    first, second = read_source(Source(str(tmp_path / f"rows{ending}"), answer="boxed"))
    assert first == {"id": "7", "problem": "1+1?", "solution": r"So \boxed{2}.", "answer": "2", "source": "us"}
    assert second["id"] == "8" and "solution" not in second


def test_a_list_of_answers_becomes_one_text_and_an_empty_problem_is_an_error(tmp_path: Path):
    write_jsonl(tmp_path / "rows.jsonl", [{"problem": "roots?", "final_answer": ["1", "-1"]}, {"problem": " "}])
    source = Source(str(tmp_path / "rows.jsonl"), columns={"answer": "final_answer"})
    rows = read_source(source)
    assert next(rows)["answer"] == "1, -1"
    with pytest.raises(DataError, match="line 2: field 'problem' is ' ': it must hold some text"):
        next(rows)


def test_the_generator_is_a_source_and_needs_a_limit():
    rows = list(read_source(Source("arithmetic", limit=3, seed=1)))
    assert len({row["id"] for row in rows}) == 3 and all(row["solution"].endswith("}") for row in rows)
    with pytest.raises(DataError, match="give a limit"):
        next(read_source("arithmetic"))


def test_every_benchmark_has_a_short_name():
    assert set(BENCHMARKS) < set(KNOWN)


@pytest.mark.parametrize("broken", ["{", "PAR1"])
def test_a_parquet_file_that_is_none(tmp_path: Path, broken: str):
    (tmp_path / "rows.parquet").write_text(broken)
    with pytest.raises(DataError, match=r"rows\.parquet: not a Parquet file"):
        read_table(tmp_path / "rows.parquet")


def test_tables_name_what_is_missing(tmp_path: Path):
    write_table(tmp_path / "rows.parquet", [{"a": 1, "b": None}, {"a": None, "b": 2}])
    assert read_table(tmp_path / "rows.parquet", [], ["a", "b"]) == [{"a": 1}, {"b": 2}]
    with pytest.raises(DataError, match="row 2: field 'a' is missing"):
        read_table(tmp_path / "rows.parquet", ["a"])
    with pytest.raises(DataError, match=r"must end in \.jsonl or \.parquet"):
        write_table(tmp_path / "rows.csv", [])


SAME = [
    (r"What is $\dfrac{1}{2}$ of 1,000?", r"what is \frac12 of 1000 ?"),
    ("Find $x - 3$.", "Find x − 3"),
    (r"Let \text{A} = 3\,cm", "let A=3 cm"),
]
DIFFERENT = [("Add 1.5 and 2", "Add 15 and 2"), ("x+1", "x-1"), ("ten hens", "two hens")]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_copies_that_differ_in_typesetting_are_the_same(one: str, other: str):
    assert normalized(one) == normalized(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_other_problems_are_not(one: str, other: str):
    assert normalized(one) != normalized(other)


def test_a_problem_that_a_benchmark_has_is_dropped_and_says_which():
    rows: list[dict[str, Any]] = [{"id": "a", "problem": "1 + 1 = ?"}, {"id": "b", "problem": "2+2"}]
    dropped = Counter[str]()
    assert list(without_benchmarks(rows, Benchmarks.of({"quiz": ["$1+1=$?"], "other": ["3+3"]}), dropped)) == [rows[1]]
    assert dropped == {"quiz": 1}


def test_rows_are_compared_with_benchmarks_one_at_a_time():
    """A source may be larger than the memory, or never end."""
    rows = ({"id": str(n), "problem": f"{n}+1"} for n in count())
    kept = without_benchmarks(rows, Benchmarks.of({"quiz": ["0+1"]}), Counter())
    assert [row["id"] for row in islice(kept, 3)] == ["1", "2", "3"]


@pytest.mark.skipif(not DATA.is_dir(), reason="needs MATH")
def test_all_of_math500_is_found_in_math_itself():
    benchmarks = Benchmarks.of({"math": [row["problem"] for row in read_source(str(DATA / "math_test.jsonl"))]})
    dropped = Counter[str]()
    assert list(without_benchmarks(read_source(str(DATA / "math500.jsonl")), benchmarks, dropped)) == []
    assert dropped == {"math": 500}
