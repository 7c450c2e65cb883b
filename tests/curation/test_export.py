"""Export: the texts that another trainer sees are, joined, the ones that the policy was shown and wrote."""

from dataclasses import asdict
from pathlib import Path

import pytest
from datasets import load_dataset

from psr.commands.export import export
from psr.errors import NoPairsError
from psr.files.jsonl import DataError, write_jsonl
from psr.files.tables import write_table
from psr.prompts.templates import Prompts
from psr.records import Problem, StepNode, Trajectory
from tests.scripted import candidate

EFT = {"id": "e", "problem": "3+4-5", "previous_steps": ["3+4=7"], "chosen": "7-5=2", "rejected": "7-5=3"}


def trajectory() -> Trajectory:
    def node(depth: int, texts: list[str], scores: tuple[int, ...], event: str) -> StepNode:
        chosen, rejected = scores.index(max(scores)), scores.index(min(scores))
        return StepNode(depth, tuple(map(candidate, texts)), (), scores, chosen, rejected, event)  # type: ignore[arg-type]

    nodes = (
        node(0, ["3+4=8\n", "3+4=9\n"], (1, 0), "rolled_back"),
        node(0, ["3+4=7\n", "3+4=8\n"], (1, 0), "kept"),
        node(1, ["7-5=2", "7-5=2"], (0, 0), "kept"),
    )
    return Trajectory(Problem("p", "3+4-5"), (1,), nodes, True, "M1")


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_traces_become_preferences_of_the_kept_steps(tmp_path: Path, prompts: Prompts, ending: str):
    write_jsonl(tmp_path / "traces.jsonl", [asdict(trajectory())])
    export(tmp_path / "traces.jsonl", tmp_path / f"pairs.{ending}", "traces", prompts)
    [row] = load_dataset(str(tmp_path), data_files=f"pairs.{ending}", split="train")
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("3+4-5\n", "3+4=7\n", "3+4=8\n")
    assert row["schema"] == "psr-preference-1" and row["id"] == "p/0"


def test_judged_pairs_become_preferences_in_the_step_format(tmp_path: Path):
    write_table(tmp_path / "eft.parquet", [EFT])
    export(tmp_path / "eft.parquet", tmp_path / "pairs.jsonl", "eft", Prompts(reason="{problem}\n"))
    [row] = load_dataset(str(tmp_path), data_files="pairs.jsonl", split="train")
    assert row["prompt"] == "3+4-5\nStep 1: 3+4=7\n"
    assert (row["chosen"], row["rejected"]) == ("Step 2: 7-5=2\n", "Step 2: 7-5=3\n")


def test_solutions_become_messages(tmp_path: Path):
    write_jsonl(tmp_path / "ift.jsonl", [{"id": 1, "problem": "3+4?", "solution": "3+4\n=7", "answer": "7"}])
    export(tmp_path / "ift.jsonl", tmp_path / "messages.jsonl", "ift", Prompts(reason="Q: {problem}"))
    [row] = load_dataset(str(tmp_path), data_files="messages.jsonl", split="train")
    assert row["messages"] == [
        {"role": "user", "content": "Q: 3+4?"},
        {"role": "assistant", "content": "Step 1: 3+4\nStep 2: =7 \\boxed{7}"},
    ]


def test_nothing_to_export_and_wrong_kinds_are_errors(tmp_path: Path):
    unfinished = Trajectory(Problem("p", "x"), (1,), (), False, "M1")
    write_jsonl(tmp_path / "traces.jsonl", [asdict(unfinished)])
    with pytest.raises(NoPairsError, match="no step with a winner"):
        export(tmp_path / "traces.jsonl", tmp_path / "out.jsonl")
    write_jsonl(tmp_path / "eft.jsonl", [EFT])
    with pytest.raises(DataError, match=r"eft\.jsonl, line 1: not a trajectory"):
        export(tmp_path / "eft.jsonl", tmp_path / "out.jsonl")
