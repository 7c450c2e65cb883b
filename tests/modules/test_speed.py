"""Tokens a second and MFU: every trained token counts once, and FLOPs are those that torch counts."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from torch.utils.flop_counter import FlopCounterMode

from psr.data.rows import row_loader
from psr.modules.sft import SFTModule
from psr.modules.speed import Cost, Speed, peak_flops
from psr.policy.folder import load_policy
from psr.policy.lora import add_adapters
from psr.policy.lora_settings import LoRA
from psr.trees.attention import use_tree_attention
from psr.trees.scoring import CHUNK, row_logprobs
from tests.families import RIGHT, make_model
from tests.modules.test_sft import SAMPLES, SOME_ROWS, plan
from tests.modules.test_step_dpo import QUIET
from tests.trees.test_step_tree import random_pairs, row_of


@pytest.mark.parametrize("lora", [None, LoRA(rank=4)])
def test_flops_are_those_of_the_layers_that_torch_counts(llama: Path, lora: LoRA | None):
    """All but attention, of which a CPU computes whole blocks, and the logits that the backward pass computes again."""
    policy = use_tree_attention(load_policy(llama))
    if lora is not None:
        add_adapters(policy, lora)
    row = row_of(*(random_pairs(random.Random(seed)) for seed in range(3)))
    cost = Cost.of(policy)
    assert cost is not None
    with FlopCounterMode(display=False) as counter:
        row_logprobs(policy, row).sum().backward()
    by_layer = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in by_layer.items() if "bmm" not in str(op) and "attention" not in str(op))
    head = policy.get_output_embeddings()
    again = 2 * head.in_features * head.out_features * len(row.targets)
    assert len(row.targets) < CHUNK
    expected = cost.token * len(row.token_ids) + cost.scored * len(row.targets)
    # With adapters alone nothing needs the gradient of the first layer's input.
    assert products - again == pytest.approx(expected, rel=0.05 if lora else 0.01)
    assert cost.pair == 12 * 2 * 32


@pytest.mark.parametrize("name", ["gpt2", "mixtral"])
def test_a_model_whose_operations_are_not_counted_has_no_utilisation(name: str):
    """GPT-2's layers are no linear ones of torch, and the experts of a mixture are one tensor."""
    assert Cost.of(make_model(*RIGHT[name])) is None


def test_every_token_of_an_optimizer_step_counts_once(llama: Path):
    found: list[dict[str, float]] = []

    class Read(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            found.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    rows = plan(SOME_ROWS, len(SAMPLES))
    module = SFTModule(str(llama), peak_tflops=1e-3)
    seen: list[int] = []
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=2, callbacks=[Read()], **QUIET)
    take = Speed.take

    def taken(self: Speed, device: torch.device) -> dict[str, float]:
        seen.append(self.tokens)
        return take(self, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Speed, "take", taken)
        trainer.fit(module, row_loader(rows, trainer), row_loader(rows, None, accumulate=False))
    assert seen == [sum(tree.tokens for row in rows.rows for tree in row.trees)] * 2, "validation is not training"
    assert found[-1]["train/tokens_per_second"] > 0 and 0 < found[-1]["train/mfu"] < 100


def test_the_peak_is_as_given_or_by_the_name_of_the_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    gpu = torch.device("cuda")
    assert peak_flops(gpu, None) == pytest.approx(989e12, rel=0.01)
    assert peak_flops(gpu, 500.0) == 500e12
    assert peak_flops(torch.device("cpu"), None) is None
