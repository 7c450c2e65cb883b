"""`benchmarks/search.py` for real, with a tiny model and few problems: figures and their JSON."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from psr.files.jsonl import read_json, write_jsonl
from tests.recipes.tiny_run import ROOT, environment

SYSTEMS = ("plain", "plain_batched", "continuous_batching")
OPTIONS = [
    "--recipe",
    "tests/recipes/tiny",
    "--problems",
    "3",
    "--width",
    "3",
    "--widths",
    "2",
    "3",
    "--growth",
    "2",
    "3",
]


@pytest.fixture(scope="module")
def figures(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    run = tmp_path_factory.mktemp("run")
    shutil.copytree(llama, run / "models/M1")
    write_jsonl(run / "data/problems.jsonl", [{"id": str(i), "problem": f"{i}3+4-1{i}"} for i in range(5)])
    command = [sys.executable, "benchmarks/search.py", "--run", str(run), "--json", str(run / "out.json"), *OPTIONS]
    subprocess.run([*command, "--systems", *SYSTEMS], cwd=ROOT, env=environment(), check=True)
    return read_json(run / "out.json")


def test_all_systems_find_the_same_pairs_and_ours_is_faster(figures: dict):
    assert figures["identical_pairs"] == 1.0
    assert {name: system["identical_pairs"] for name, system in figures["systems"].items()} == dict.fromkeys(
        SYSTEMS, 1.0
    )
    assert figures["speedup_vs_plain"] == figures["systems"]["plain"]["ours_is_faster_by"] > 1


def test_the_tokens_of_prompts_are_about_the_fewest_possible(figures: dict):
    assert figures["prompt_tokens_computed"] < figures["prompt_tokens_asked"]
    assert figures["prompt_tokens_over_minimum"] <= 1.15


def test_adaptive_asks_for_fewer_verdicts_with_the_same_pairs(figures: dict):
    assert set(figures["verdicts_adaptive_over_round_robin"]) == {"2", "3"}
    for row in figures["comparisons"]:
        assert row["adaptive"]["same"] == 1.0
        assert 0 < row["adaptive"]["share"] <= 1.0


def test_the_growth_is_by_problems_and_by_width(figures: dict):
    rows = figures["growth"]["rows"]
    assert [(row["problems"], row["width"]) for row in rows] == [(2, 3), (3, 3), (2, 2), (2, 3)]
    assert all(row["seconds"] > 0 and row["requests"] > 0 for row in rows)
    assert figures["growth"]["over_linear"] == pytest.approx(
        max(0.0, rows[1]["seconds"] / 3 / (rows[0]["seconds"] / 2) - 1)
    )
