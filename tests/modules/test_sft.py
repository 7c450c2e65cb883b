"""Supervised training on packed rows under a real Trainer, against the samples one by one."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor

from psr.data.rows import row_loader
from psr.modules.sft import SFTModule
from psr.policy.folder import load_policy
from psr.policy.lora_settings import LoRA
from psr.trees.packing import Plan, Unit, plan_rows
from psr.trees.step_tree import Sample
from tests import pair_by_pair
from tests.modules.test_step_dpo import QUIET
from tests.trees.test_step_tree import some_ids

RNG = random.Random(0)
SAMPLES = [Sample(some_ids(RNG, 1, 9), some_ids(RNG, 1, 12)) for _ in range(11)]
ONE_ROW, SOME_ROWS = 10_000, 30


def plan(row_tokens: int, batch_size: int) -> Plan:
    groups = [(Unit(number, (sample,)),) for number, sample in enumerate(SAMPLES)]
    return plan_rows(groups, batch_size, row_tokens, mean_over="tokens")


def fit(module: SFTModule, rows: Plan, **options: Any) -> Trainer:
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=1, **QUIET, **options)
    trainer.fit(module, row_loader(rows, trainer), row_loader(rows, None))
    return trainer


def one_by_one(folder: Path) -> tuple[Any, Tensor]:
    """The model, and the log-probabilities of all completion tokens of all samples."""
    model = load_policy(folder)
    return model, torch.cat([pair_by_pair.logprobs(model, sample) for sample in SAMPLES])


@pytest.mark.parametrize("row_tokens", [ONE_ROW, SOME_ROWS])
def test_an_optimizer_step_is_the_one_of_the_samples_one_by_one(policy: Path, row_tokens: int):
    """One step with plain gradient descent: the weights move by the gradient of the mean over all completion tokens."""

    class Descent(SFTModule):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1.0)

    obvious, logprobs = one_by_one(policy)
    (-logprobs.mean()).backward()
    module, rows = Descent(str(policy)), plan(row_tokens, len(SAMPLES))
    assert (rows.rows_per_step > 1) == (row_tokens == SOME_ROWS)
    trainer = fit(module, rows)
    assert trainer.global_step == 1 and module.policy is not None
    before = load_policy(policy)
    for name, parameter in obvious.named_parameters():
        assert parameter.grad is not None
        moved = before.get_parameter(name) - module.policy.get_parameter(name)
        assert torch.allclose(moved, parameter.grad, atol=1e-4), name
    assert trainer.logged_metrics["train/loss"].item() == pytest.approx(-logprobs.mean().item(), rel=1e-4)


def test_validation_is_over_all_completion_tokens(policy: Path):
    module = SFTModule(str(policy), lr=0.0)
    metrics = fit(module, plan(SOME_ROWS, 4)).logged_metrics
    model, logprobs = one_by_one(policy)
    assert metrics["val/loss"].item() == pytest.approx(-logprobs.mean().item(), rel=1e-4)
    hits = []
    for sample in SAMPLES:
        whole = torch.tensor([[*sample.prompt_ids, *sample.completion_ids]])
        best = model(whole).logits[0].argmax(-1)
        hits += (best[len(sample.prompt_ids) - 1 : -1] == whole[0, len(sample.prompt_ids) :]).tolist()
    assert metrics["val/token_accuracy"].item() == pytest.approx(sum(hits) / len(hits), abs=1e-6)


def test_the_learning_rate_follows_optimizer_steps_not_rows(llama: Path):
    module = SFTModule(str(llama), lr=1e-3, warmup_share=0.5)
    trainer = fit(module, plan(SOME_ROWS, 3))
    assert trainer.global_step == 4
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("lora", [None, LoRA(rank=4)])
def test_the_trained_policy_is_exported_whole(llama: Path, tmp_path: Path, lora: LoRA | None):
    module = SFTModule(str(llama), str(tmp_path / "M1"), lr=1e-2, warmup_share=0.1, lora=lora)
    fit(module, plan(SOME_ROWS, 2))
    _, before = one_by_one(llama)
    exported, after = one_by_one(tmp_path / "M1")
    assert set(exported.state_dict()) == set(load_policy(llama).state_dict())
    assert after.mean() > before.mean() + 0.1
