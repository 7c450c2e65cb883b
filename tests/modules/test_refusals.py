"""What a fit refuses before its first step, and an export before anybody goes on from it; no dropout in between."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from psr.data.rows import row_loader
from psr.modules.sft import SFTModule
from psr.modules.step_dpo import StepDPOModule
from psr.modules.training import RowModule
from psr.policy import folder as policy_folder
from psr.policy.folder import load_trainable
from psr.policy.lora import LoRA
from psr.policy.masks import UnsupportedModel
from psr.policy.tokenizer import PolicyError
from tests.families import REFUSED, RIGHT, save_model
from tests.modules import test_sft
from tests.modules.test_step_dpo import QUIET, plan


def fit(module: RowModule, rows: Any, **options: Any) -> Trainer:
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=1, log_every_n_steps=1, **QUIET, **options)
    trainer.fit(module, row_loader(rows, trainer))
    return trainer


class Losses(StepDPOModule):
    """Notes the loss of every row."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.seen: list[float] = []

    def training_step(self, row: Any, row_number: int) -> Tensor:
        loss = super().training_step(row, row_number)
        self.seen.append(float(loss.detach() / row.share) / len(row.units))
        return loss


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_policy_with_dropout_starts_where_its_reference_is(tmp_path: Path, checkpointing: bool):
    """GPT-2's config says 0.1, here 0.2: at learning rate 0 every loss is that of equal log-ratios."""
    folder = save_model(tmp_path / "M1", *RIGHT["gpt2"])
    module = Losses(str(folder), lr=0.0, checkpoint_activations=checkpointing)
    fit(module, plan())
    assert len(module.seen) >= 3
    assert module.seen == pytest.approx([math.log(2)] * len(module.seen), abs=1e-6)


def test_layers_are_computed_again_without_their_dropout(tmp_path: Path):
    policy = load_trainable(save_model(tmp_path / "M1", *RIGHT["gpt2"]), checkpoint_activations=True)
    computed_again = [module for module in policy.modules() if isinstance(module, GradientCheckpointingLayer)]
    assert computed_again and all(module.training and module.gradient_checkpointing for module in computed_again)
    assert not any(module.training for module in policy.modules() if isinstance(module, torch.nn.Dropout))


@pytest.mark.parametrize("name", ["llama4", "lfm2", "bloom"])
def test_a_model_that_would_be_trained_as_another_one_is_refused_before_the_first_step(name: str, tmp_path: Path):
    architecture, settings, reason = REFUSED[name]
    module = SFTModule(str(save_model(tmp_path / "M0", architecture, settings)), str(tmp_path / "M1"))
    with pytest.raises(UnsupportedModel, match=rf"psr cannot train the {architecture} in {tmp_path}/M0: .*{reason}"):
        fit(module, test_sft.plan(test_sft.ONE_ROW, len(test_sft.SAMPLES)))
    assert module.trainer.global_step == 0 and not (tmp_path / "M1").exists()


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_weights_of_16_bits_are_not_trained(llama: Path, precision: Any):
    with pytest.raises(PolicyError, match=rf"trainer\.precision is '{precision}': .*use bf16-mixed"):
        fit(SFTModule(str(llama)), test_sft.plan(test_sft.ONE_ROW, len(test_sft.SAMPLES)), precision=precision)


def test_an_export_that_is_not_what_was_trained_is_not_believed(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As adapters that are not merged, or merged wrongly, would leave it."""

    def unmerged(policy: Any) -> dict[str, Tensor]:
        return {n.replace(".base_layer.", "."): v for n, v in policy.state_dict().items() if ".lora_" not in n}

    monkeypatch.setattr(policy_folder, "merged_state", unmerged)
    module = SFTModule(str(llama), str(tmp_path / "M1"), lr=0.1, warmup_share=0.0, lora=LoRA(rank=4))
    with pytest.raises(PolicyError, match=rf"does not compute what was trained .* in {tmp_path}/M1.refused"):
        fit(module, test_sft.plan(test_sft.SOME_ROWS, 2))
    assert not (tmp_path / "M1").exists() and (tmp_path / "M1.refused" / "config.json").is_file()
