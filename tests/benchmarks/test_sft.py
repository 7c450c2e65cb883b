"""benchmarks/sft.py on a tiny model: both trainers run, and the floating-point operations are those of the model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from peers import make_model
from psr.trees.packing import Unit, plan_rows
from psr.trees.step_tree import Sample
from sft import by_psr, by_trl, random_samples, training_flops
from tests.recipes.tiny_run import ROOT, environment


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model("tiny", tmp_path_factory.mktemp("peers") / "model"))


def test_training_flops(model: str):
    """Two samples of 3 + 2 and 1 + 1 tokens; 2 layers: q, o 32 x 32, k, v 32 x 16, three 32 x 64; a head of 64 x 32."""
    samples = [Sample((5, 6, 7), (8, 9)), Sample((5,), (6,))]
    plan = plan_rows([(Unit(i, (sample,)),) for i, sample in enumerate(samples)], 2, 100, mean_over="tokens")
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64
    attention = 12 * 2 * 32 * (5 * 6 // 2 + 2 * 3 // 2)
    assert training_flops(model, plan) == 6 * 2 * layer * 7 + 6 * 64 * 32 * 3 + attention


def test_both_trainers_train(model: str):
    samples = random_samples(6, "tiny")
    ours, theirs = by_psr(model, samples, 3, 1024), by_trl(model, samples, 3, 1024)
    assert 0 < ours["mfu"] < 1 and ours["gemm_peak_gflops"] > 1
    assert ours["tokens_per_second"] * ours["seconds"] == pytest.approx(sum(map(len, samples)))
    assert theirs["tokens_per_second"] * theirs["seconds"] == pytest.approx(sum(map(len, samples)))


@pytest.mark.slow
def test_the_script_prints_a_table_and_writes_its_figures(tmp_path: Path):
    command = [sys.executable, "benchmarks/sft.py", "--shape", "tiny", "--samples", "6", "--batch", "3"]
    command += ["--row-tokens", "1024", "--repeats", "1", "--json", str(tmp_path / "a.json")]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert "supervised fine-tuning" in done.stdout
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["speedup_vs_trl"] > 0 and 0 < found["mfu"] < 1 and found["gemm_peak_gflops"] > 1
