"""What a model or a stranger wrote does nothing on a terminal, and its ids lead to no file."""

import json
import re
from pathlib import Path

import pytest

from psr.cli.main import main
from psr.files.jsonl import read_jsonl, write_jsonl
from tests.recipes.tiny_run import TINY

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[bold red]7[/]\r\b"
ACTING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
PATHS = (
    "../../escaped",
    "/tmp/escaped",
    "..",
    "a/b",
    "a\\b",
    "a\nb",
    "CON",
    "~",
    "$(touch escaped)",
    "%2e%2e%2f",
    "é" * 200,
)


def said(words: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """Everything that the command puts on the terminal, its error message too; it may hold nothing that acts."""
    told = ""
    try:
        main(words)
    except SystemExit as error:
        told = f"{error.code}\n"
    text = told + "".join(capfd.readouterr())
    assert not ACTING.search(text), ACTING.findall(text)
    return text


def test_predictions_that_are_graded(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    rows = [{"prediction": f"so \\boxed{{{HOSTILE} hours}}", "answer": f"{HOSTILE} days"}]
    write_jsonl(tmp_path / "predictions.jsonl", rows)
    text = said(["grade", str(tmp_path / "predictions.jsonl")], capfd)
    assert "\\x1b]0;owned\\x07" in text and "worth reading" in text


@pytest.mark.parametrize("command", ["problems", "ift"])
def test_rows_that_a_message_quotes(command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    for row in ({"id": HOSTILE, "problem": 3}, {"problem": "x", HOSTILE: 1, "solution": [HOSTILE]}):
        write_jsonl(tmp_path / "rows.jsonl", [row])
        text = said(["data", command, str(tmp_path / "rows.jsonl"), str(tmp_path / "out.jsonl")], capfd)
        assert "psr: " in text


def test_names_that_a_message_quotes_as_they_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    path = tmp_path / f"{HOSTILE.replace('/', '')}.jsonl"
    words = ["data", "problems", str(path), str(tmp_path / "out.jsonl")]
    assert "\\x1b]0;owned\\x07" in said(words, capfd)  # of a file
    write_jsonl(path, [{HOSTILE: 1}])
    assert said(words, capfd).count("\\x1b]0;owned\\x07") > 1  # and of its fields


def test_requests_that_a_dry_run_shows(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    write_jsonl(tmp_path / "rows.jsonl", [{"id": "a", "problem": HOSTILE, "solution": f"{HOSTILE} \\boxed{{7}}"}])
    words = ["data", "ift", str(tmp_path / "rows.jsonl"), str(tmp_path / "out.jsonl"), "--segmenter", "annotator"]
    words += ["--annotator.url", "http://localhost:1/v1", "--annotator.model", "m", "--dry_run", "true"]
    assert "\\x1b]0;owned\\x07" in said(words, capfd)


def search(tmp_path: Path, llama: Path, ids: list[str]) -> list[str]:
    write_jsonl(tmp_path / "problems.jsonl", [{"id": one, "problem": "3+4", "answer": "7"} for one in ids])
    words = ["search", "--model", str(llama), "--problems", str(tmp_path / "problems.jsonl")]
    words += ["--out", str(tmp_path / "out"), "--prompts", str(TINY / "prompts.yaml"), "--width", "2"]
    return [*words, "--max_steps", "2", "--max_step_tokens", "6", "--max_tokens", "12", "--judge.max_tokens", "6"]


def test_ids_are_texts_and_no_paths(tmp_path: Path, llama: Path, capfd: pytest.CaptureFixture[str]):
    ids = [*PATHS, HOSTILE]
    said(search(tmp_path, llama, ids), capfd)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"problems.jsonl", "out/lock", "out/step.jsonl", "out/summary.json"}
    assert not Path("/tmp/escaped").exists()
    assert sorted(row["id"] for row in read_jsonl(tmp_path / "out" / "step.jsonl", ["id"])) == sorted(ids)
    assert "occurs 2 times" in said(search(tmp_path / "again", llama, [HOSTILE, HOSTILE]), capfd)


def test_a_benchmark_without_answers_is_named(tmp_path: Path, llama: Path, capfd: pytest.CaptureFixture[str]):
    rows = [{"id": HOSTILE, "problem": "3+4", "answer": ""}, {"id": "b", "problem": "3+4" * 60, "answer": "7"}]
    write_jsonl(tmp_path / "sums.jsonl", rows)
    words = [
        "evaluate",
        f"--models={json.dumps([str(llama)])}",
        f"--benchmarks={json.dumps([str(tmp_path / 'sums.jsonl')])}",
    ]
    words += ["--out", str(tmp_path / "out"), "--prompts", str(TINY / "prompts.yaml"), "--strategy.max_tokens", "6"]
    text = said(words, capfd).replace("\n", "")
    assert "\\x1b]0;owned\\x07" in text and "[bold red]7[/]" in text
