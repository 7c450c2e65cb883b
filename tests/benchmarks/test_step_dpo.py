"""benchmarks/step_dpo.py on a tiny model: all ways train alike, TRL itself among them, and the figures are of them."""

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from peers import in_own_process, make_model
from psr.prompts.encoder import Encoder
from psr.trees.step_tree import Sample
from step_dpo import figures, judged_groups, random_groups, table
from step_dpo_ways import Job, as_step_trees, by_trl, padded_tokens, pair_by_pair, pairs_of
from tests.recipes.tiny_run import ROOT, environment


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    model = make_model("tiny", tmp_path_factory.mktemp("peers") / "model")
    return Job(str(model), tuple(random_groups(4, 12, "tiny")), batch=4, row_tokens=1024)


def test_all_ways_see_the_same_losses(job: Job):
    """Also after two updates of the weights. In bf16: TRL pads, the trees share, so they round differently."""
    trees = as_step_trees(job)
    assert len(trees["losses"]) == 3 and len(set(trees["losses"])) == 3
    for other in (pair_by_pair(job), by_trl(job, micro_batch=2), by_trl(job, micro_batch=1)):
        assert other["losses"] == pytest.approx(trees["losses"], abs=2e-3)
        assert other["tokens"] > 2 * trees["tokens"]


def test_tokens_are_counted_with_trls_padding():
    def side(length: int) -> Sample:
        return Sample((1,), (2,) * (length - 1))

    pairs = [(side(3), side(5)), (side(7), side(2)), (side(4), side(4))]
    assert padded_tokens(pairs, 2) == 4 * 7 + 2 * 4
    assert padded_tokens(pairs, 1) == 2 * 5 + 2 * 7 + 2 * 4


def test_every_pair_comes_once(job: Job):
    """In the order of the step trees' optimizer steps, which is that of the trajectories here."""
    assert pairs_of(job) == [unit.samples for group in job.groups for unit in group]


def result_of(seconds: dict[str, float | None]) -> dict[str, Any]:
    """A result whose ways need as many seconds as bytes, and half as many as tokens."""
    return {
        "pairs": 8,
        "steps": 8,
        "ways": {
            name: s and {"seconds": s, "tokens": s * 2, "peak_memory": s, "losses": [s]} for name, s in seconds.items()
        },
    }


def test_speed_is_over_the_step_trees():
    found = figures(result_of({"trl": 90.0, "one": 60.0, "pairs": 50.0, "step trees": 10.0}))
    assert (found["speedup_vs_trl"], found["speedup_vs_trl_micro_batches"], found["speedup_vs_pairs"]) == (6, 9, 5)
    assert (found["token_ratio"], found["token_ratio_micro_batches"]) == (6, 9)
    assert found["memory_vs_trl"] == pytest.approx(1 / 6)
    assert found["memory_vs_trl_micro_batches"] == pytest.approx(1 / 9)
    assert found["max_loss_difference"] == 80.0


def test_a_setting_that_ran_out_of_memory_has_no_figures():
    result = result_of({"trl": None, "one": 60.0, "pairs": 50.0, "step trees": 10.0})
    found = figures(result)
    assert found["speedup_vs_trl_micro_batches"] is None and found["memory_vs_trl_micro_batches"] is None
    assert found["speedup_vs_trl"] == 6 and found["max_loss_difference"] == 50.0
    assert table(result).row_count == 4


def test_a_process_that_was_killed_has_no_result():
    assert in_own_process(killed) is None


def killed() -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_judged_pairs_of_a_trajectory_share_a_tree(encoder: Encoder, tmp_path: Path):
    """Rows that continue each other, cut to the 8 steps that the headline has."""
    steps = [f"a{i}+1={i + 1}" for i in range(10, 30)]
    rows = [
        {"id": str(n), "problem": "10+1", "previous_steps": steps[:n], "chosen": steps[n], "rejected": "a1+1=3"}
        for n in (0, 1, 2, 4, 5, 6, 8, 9, 11)
    ]
    other = {**rows[0], "id": "other", "problem": "7", "previous_steps": []}
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [other, *rows[::-1]]))
    [group] = judged_groups(path, encoder, 16)
    assert [unit.number for unit in group] == list(range(8))
    prompts = [unit.samples[0].prompt_ids for unit in group]
    assert all(unit.samples[1].prompt_ids == prompt for unit, prompt in zip(group, prompts, strict=True))
    assert all(after[: len(before)] == before for before, after in pairwise(prompts))
    assert encoder.text(prompts[2][len(prompts[0]) :]) == f"{steps[0]}\n{steps[1]}\n"


@pytest.mark.slow
def test_the_script_prints_a_table_and_writes_its_figures(tmp_path: Path):
    command = [sys.executable, "benchmarks/step_dpo.py", "--shape", "tiny", "--batch", "8", "--micro-batch", "4"]
    command += ["--optimizer-steps", "2", "--steps", "2", "--repeats", "1", "--json", str(tmp_path / "out" / "a.json")]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert "8 steps a trajectory" in done.stdout and "2 steps a trajectory" in done.stdout
    found = json.loads((tmp_path / "out" / "a.json").read_text())
    assert found["max_loss_difference"] < 0.01 and found["sweep"].keys() == {"2", "8"}
    assert 8 < found["token_ratio_micro_batches"] < 11 and 5 < found["token_ratio_vs_pairs"] < 7
    assert found["speedup_vs_trl"] > 0 and found["speedup_vs_pairs"] > 0 and 0 < found["memory_vs_trl"] < 2
