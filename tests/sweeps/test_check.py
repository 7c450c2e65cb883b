"""Every trial's settings are checked before the first trial; what is checked runs nothing and leaves nothing."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from psr.cli.main import main, rehearse
from psr.commands.sweep_check import check_trials, psr_words, representatives
from psr.errors import UsageError
from psr.sweeps.file import read_sweep
from tests.recipes.tiny_run import ROOT, TINY, contents, finished_run
from tests.sweeps.test_sweep import TINY_SWEEP

BETA = "model.init_args.loss.init_args.beta"


def tiny_sweep(folder: Path, parameters: dict[str, Any], method: str = "random") -> Path:
    text = TINY_SWEEP.read_text().replace("RECIPE", str(TINY)).replace("BASE", str(finished_run().folder))
    document = {**yaml.safe_load(text), "method": method, "parameters": parameters}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(document))
    return folder / "tiny.yaml"


def test_ends_and_members_of_every_parameter_occur_and_of_a_grid_every_point(tmp_path: Path):
    parameters: dict[str, Any] = {"a": {"values": [1, 2, 3]}, "b": {"min": 0.5, "max": 1.0}, "c": {"value": "x"}}
    found = representatives(read_sweep(tiny_sweep(tmp_path, parameters)))
    assert [(one["a"], one["b"], one["c"]) for one in found] == [(1, 0.5, "x"), (2, 1.0, "x"), (3, 0.5, "x")]
    whole: dict[str, Any] = {"a": {"values": [1, 2, 3]}, "b": {"values": ["x", "y"]}}
    assert len(representatives(read_sweep(tiny_sweep(tmp_path, whole, "grid")))) == 6


def test_the_words_for_psr_are_found_in_a_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_RUN_ID", "x-001")
    assert psr_words(["/usr/bin/env", "psr", "trial", "a"]) == ["trial", "a"]
    assert psr_words(["python", "-m", "psr.cli.main", "run"]) == ["run"]
    assert psr_words(["sh", "-c", 'psr run r --run-dir t/$WANDB_RUN_ID "$@"', "sh", "--x={a: b}"]) == [
        *("run", "r", "--run-dir", "t/x-001", "--x={a: b}")
    ]
    for other in (["python", "train.py"], ["sh", "-c", "psr run r; rm -r r", "sh"], ["sh", "-c", "train $@", "sh"], []):
        assert psr_words(other) is None


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"model.init_args.lrr": {"values": [1e-3]}}, r"lrr=0\.001.* cannot be run: .*lrr"),
        ({"data.init_args.search.width": {"min": 0, "max": 4}}, r"width=0.* cannot be run: search\.width is 0"),
        (
            {"data.init_args.search.width": {"values": [3, "wide"]}},
            "width=wide.* cannot be run: .*width.* whole number",
        ),
        (
            {"data.init_args.judge.score_samples": {"values": [1, 2]}},
            "score_samples=2.* cannot be run: judge.score_samp",
        ),
        ({BETA: {"min": -1.0, "max": 1.0}}, "beta=-1.0.* cannot be run: loss.beta is -1.0"),
        ({"model.init_args.model": {"values": ["models/M1", "models/M9"]}}, "M9 cannot be run: no model in models/M9"),
        ({"trainer.callbacks": {"values": ["Nobody"]}}, "Nobody"),
    ],
)
def test_a_setting_that_cannot_be_run_is_named_before_the_first_trial(
    tmp_path: Path, parameters: dict[str, Any], said: str
):
    base = finished_run().folder
    before = contents(base)
    path = tiny_sweep(tmp_path, {**parameters, "model.init_args.lr": {"values": [1e-3]}})
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(path), str(base), "--trials", "3"])
    message = str(ended.value)
    assert message.startswith("psr: a trial of tiny with ") and "Traceback" not in message
    assert re.search(said, message), message
    assert contents(base) == before and not (base / "trials").exists()
    assert "WANDB_RUN_ID" not in os.environ


def test_a_sweep_that_can_be_run_passes_and_nothing_is_left(tmp_path: Path):
    base = finished_run().folder
    before = contents(base)
    good = {BETA: {"values": [0.1, 1.0]}, "data.init_args.search.width": {"min": 3, "max": 4}}
    check_trials(read_sweep(tiny_sweep(tmp_path, good)), base, rehearse)
    assert contents(base) == before


def ablation(folder: Path, **values: list[str]) -> Path:
    """The ablation of configs/srlm, with other values of its variables."""
    document = yaml.safe_load((ROOT / "configs" / "srlm" / "ablation.yaml").read_text())
    document["parameters"] |= {f"set.{name}": {"values": some} for name, some in values.items()}
    (folder / "ablation.yaml").write_text(yaml.safe_dump(document))
    return folder / "ablation.yaml"


def test_a_sweep_of_whole_runs_is_rehearsed_stage_by_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    base = tmp_path / "base"
    check_trials(read_sweep(ablation(tmp_path)), base, rehearse)
    for name, value, said in (
        ("form", "pairwice", "pairwice"),
        ("search", "{granularity: step, widht: 6}", "widht"),
    ):
        with pytest.raises(UsageError, match=rf"{value}.* cannot be run: .*{said}"):
            check_trials(read_sweep(ablation(tmp_path, **{name: [value]})), base, rehearse)
    assert not base.exists()
