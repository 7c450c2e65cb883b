r"""`psr data ift` and `psr data problems`: every row is kept or rejected by name, and what is kept is unaltered."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from psr.cli.main import main
from psr.data.sft import ift_samples
from psr.files.jsonl import read_jsonl, write_jsonl
from psr.files.tables import read_table
from psr.prompts.encoder import Encoder
from tests.curation.annotator.endpoint import FakeEndpoint, serving
from tests.recipes.tiny_run import ROOT

GSM8K = ROOT.parent / "shared" / "data"
ROWS = [
    {"id": "a", "problem": "2+3-4?", "solution": "2+3=5.\nThen 5-4=1.", "answer": "1", "source": "us"},
    {"id": "b", "problem": "6/2?", "solution": r"We get $6/2=3$. So \boxed{3}.", "source": "us"},
    {"id": "c", "problem": "2 + 3 - 4 ?", "solution": "5. So 1.", "answer": "1"},
    {"id": "d", "problem": "7*7?", "solution": "It is 49.", "answer": "49"},
    {"id": "e", "problem": "8?", "solution": " ", "answer": "8"},
    {"id": "f", "problem": "9?", "solution": "Nine."},
]


@pytest.fixture
def source(tmp_path: Path) -> str:
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    write_jsonl(tmp_path / "quiz.jsonl", [{"problem": "$7 * 7$?"}])
    return str(tmp_path / "rows.jsonl")


def reasons(out: Path) -> dict[str, str]:
    rejects = out.with_name(f"{out.stem}.rejects.jsonl")
    return {row["id"]: row["reason"] for row in map(json.loads, rejects.read_text().splitlines())}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_by_rule_every_row_is_kept_or_rejected_by_name(source: str, tmp_path: Path, ending: str):
    out = tmp_path / f"ift.{ending}"
    main(["data", "ift", source, str(out), "--segmenter", "lines", "--benchmarks", f"[{tmp_path / 'quiz.jsonl'}]"])
    kept = {row["id"]: row["solution"] for row in read_table(out, ["id", "solution"])}
    assert kept == {"a": "2+3=5.\nThen 5-4=1. \\boxed{1}", "b": "We get $6/2=3$. So \\boxed{3}."}
    assert reasons(out) == {"c": "problem twice", "d": "in a benchmark", "e": "no solution", "f": "no answer"}
    card = (tmp_path / "ift.md").read_text()
    assert "2 solutions kept, 4 rejected" in card and "| in a benchmark | 1 |" in card and "| us | 2 |" in card
    loaded = load_dataset(str(tmp_path), data_files=out.name, split="train")
    assert set(loaded["schema"]) == {"psr-ift-1"} and len(loaded) == 2


def test_what_is_kept_is_what_supervised_training_reads(source: str, tmp_path: Path, encoder: Encoder):
    main(["data", "ift", source, str(tmp_path / "ift.jsonl")])
    first, second, *_ = ift_samples(str(tmp_path / "ift.jsonl"), encoder)
    assert encoder.text(first.completion_ids).endswith("\\boxed{1}")
    assert "\n" in encoder.text(second.completion_ids), "two sentences, two steps"


def divide(prompt: str) -> str:
    """An annotator with a fault of its own for some problems."""
    solution = prompt.partition("Solution:\n")[2].strip()
    if "7*7" in prompt:
        return "Step 1: It is fifty."
    if "6/2" in prompt:
        return "Step 1: We get $6/2=3$. Step 2: So 3."
    return (
        "Certainly!\n" + solution
        if "9?" in prompt
        else "\n".join(f"Step {i}: {part}" for i, part in enumerate(solution.split("\n"), start=1))
    )


@pytest.fixture
def annotator() -> Iterator[FakeEndpoint]:
    with serving(FakeEndpoint(answer=divide)) as endpoint:
        yield endpoint


def call(source: str, out: Path, annotator: FakeEndpoint, *options: str) -> None:
    endpoint = ["--annotator.url", annotator.url, "--annotator.model", "m"]
    main(["data", "ift", source, str(out), "--segmenter", "annotator", *endpoint, *options])


def test_an_annotator_that_alters_or_loses_something_is_found(annotator: FakeEndpoint, source: str, tmp_path: Path):
    rows: list[dict[str, Any]] = [*ROWS[:2], ROWS[3], {**ROWS[5], "answer": "9"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "ift.jsonl"
    call(source, out, annotator)
    assert [row["id"] for row in read_jsonl(out, ["id"])] == ["a"]
    assert reasons(out) == {"b": "box lost", "d": "altered", "f": "no steps"}
    call(source, out, annotator, "--similarity", "0.5")
    assert reasons(out) == {"b": "box lost", "f": "no steps"}
    assert max(annotator.asked.values()) == 1, "the second run has the replies of the first"


def test_a_dry_run_sends_and_writes_nothing(
    annotator: FakeEndpoint, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    before = sorted(tmp_path.iterdir())
    call(source, tmp_path / "ift.jsonl", annotator, "--dry-run")
    shown = capsys.readouterr().out
    assert "3 requests to" in shown and "2+3=5." in shown
    assert not annotator.asked and sorted(tmp_path.iterdir()) == before


def test_settings_that_do_not_go_together(source: str, tmp_path: Path):
    for options in (["--segmenter", "annotator"], ["--dry-run"]):
        with pytest.raises(SystemExit, match=r"settings annotator\.\* go with segmenter 'annotator'"):
            main(["data", "ift", source, str(tmp_path / "ift.jsonl"), *options])


def test_problems_lose_answers_and_what_a_benchmark_has(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "problems.jsonl"
    main(["data", "problems", source, str(out), "--benchmarks", f"[{tmp_path / 'quiz.jsonl'}]"])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["a", "b", "c", "e", "f"]
    assert all(row.keys() == {"id", "problem"} for row in rows)
    assert "5 problems, 1 in benchmarks" in capsys.readouterr().out


@pytest.mark.skipif(not GSM8K.is_dir(), reason="needs GSM8K")
@pytest.mark.parametrize("segmenter", ["lines", "sentences"])
def test_all_of_gsm8k_is_kept_or_rejected_by_name(tmp_path: Path, segmenter: str):
    out = tmp_path / "ift.jsonl"
    benchmarks = ",".join(str(GSM8K / name) for name in ("gsm8k_test.jsonl", "svamp.jsonl", "asdiv.jsonl"))
    source = str(GSM8K / "gsm8k_train.jsonl")
    main(["data", "ift", source, str(out), "--segmenter", segmenter, "--benchmarks", f"[{benchmarks}]"])
    kept, rejected = read_jsonl(out, ["id"]), reasons(out)
    names = Counter(row["id"] for row in read_jsonl(source, ["id"]))
    assert Counter([row["id"] for row in kept] + list(rejected)) == names
    assert len(kept) > 0.99 * len(names)
