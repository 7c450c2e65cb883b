"""PRMModule under the Trainer: it learns what a label depends on, and what it exports is what an engine serves."""

import asyncio
import csv
import random
from pathlib import Path

import pytest

from psr.cli.main import main
from psr.engines.local import LocalEngine
from psr.files.jsonl import write_jsonl
from psr.records import Problem
from psr.search.prm import PRM

CONFIG = """
model:
  class_path: PRMModule
  init_args: {{model: {model}, export_to: PRM, lr: 3.0e-3}}
data:
  class_path: PRMDataModule
  init_args: {{trajectories: rated.jsonl, batch_size: 24, template: "{{problem}}\\n"}}
trainer:
  default_root_dir: prm
  accelerator: cpu
  devices: 1
  max_epochs: 4
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  logger:
    class_path: CSVLogger
    init_args: {{save_dir: prm, name: logs}}
"""


def step(rng: random.Random, digit: str) -> dict:
    """A step is right unless it holds a 9; so its length says nothing."""
    return {"text": f"{rng.randint(1, 8)}+{digit}", "rating": -1 if digit == "9" else 1}


@pytest.fixture
def fitted(tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng, rows = random.Random(0), []
    for i in range(240):
        chosen = {**step(rng, rng.choice("12349")), "chosen": True}
        steps = [{"completions": [chosen, step(rng, "9")]}, {"completions": [step(rng, "3")]}]
        rows.append({"id": str(i), "problem": f"{i % 40}", "steps": steps})
    write_jsonl(tmp_path / "rated.jsonl", rows)
    (tmp_path / "prm.yaml").write_text(CONFIG.format(model=llama))
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", "prm.yaml", "--seed_everything", "0"])
    return tmp_path


def test_it_learns_is_compared_with_the_baselines_and_is_served(fitted: Path):
    with (fitted / "prm" / "logs" / "version_0" / "metrics.csv").open() as file:
        last = [row for row in csv.DictReader(file) if row["val/accuracy"]][-1]
    figures = {name: float(last[f"val/{name}"]) for name in ("accuracy", "always_plus", "length_rule", "auroc")}
    assert figures["accuracy"] > figures["always_plus"] + 0.2 and figures["auroc"] > 0.95
    assert figures["length_rule"] == pytest.approx(figures["always_plus"], abs=0.02)

    async def scores() -> list[float]:
        prm = PRM(fitted / "PRM", LocalEngine(), "{problem}\n")
        await prm.load()
        return await prm(Problem("p", "7"), ["2+3"], ["5+3\n", "5+9\n"])

    right, wrong = asyncio.run(scores())
    assert right > 0.8 and wrong < 0.2
