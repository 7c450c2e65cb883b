"""The parts that take another way on a GPU, each against the same computation on the CPU."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, Trainer
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from psr.data.rows import RowLoader, row_loader
from psr.engines.base import Sampling
from psr.engines.local import LocalEngine
from psr.modules.sft import SFTModule
from psr.modules.step_dpo import StepDPOModule
from psr.policy.folder import export_policy, load_policy, load_trainable, new_policy
from psr.policy.lora_settings import LoRA
from psr.policy.sharding import ShardedStrategy
from psr.policy.tiny_tokenizer import build_tokenizer
from psr.trees import flex
from psr.trees.attention import use_tree_attention
from psr.trees.packing import plan_rows
from psr.trees.scoring import row_logprobs
from tests.conftest import TINY
from tests.modules.test_sft import SAMPLES, SOME_ROWS
from tests.modules.test_sft import plan as sft_plan
from tests.modules.test_step_dpo import PAIRS, QUIET, plan
from tests.obvious_pairs import pair_groups
from tests.trees.test_step_tree import random_pairs, row_of

GPU = torch.device("cuda")


TOLD: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 6},
    "gemma2": {"sliding_window": 6, "query_pre_attn_scalar": 32, "attn_logit_softcapping": 2.0},
    "gpt_oss": {"sliding_window": 6, "num_local_experts": 4, "num_experts_per_tok": 2},
}
"""Families that tell their attention of a window, a soft-cap of the scores, sinks."""


@pytest.fixture(params=["qwen2", "llama", "gemma", *TOLD])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A small policy of each family, wide enough for the kernel."""
    shape = {**TINY, "hidden_size": 192, "num_attention_heads": 6, "head_dim": 32, "num_key_value_heads": 2}
    shape |= TOLD.get(request.param, {})
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    export_policy(new_policy(request.param, shape, tokenizer), tokenizer, tmp_path / "policy")
    return tmp_path / "policy"


def loss_and_gradient(model: PreTrainedModel, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    row = row_of(*(random_pairs(random.Random(seed)) for seed in range(3))).to(device)
    logprobs = row_logprobs(model.to(device), row)  # type: ignore[arg-type]
    logprobs.square().sum().backward()
    return logprobs.detach().cpu(), [p.grad.cpu() for p in model.parameters() if p.grad is not None]


def test_flex_attention_gives_the_cpus_loss_and_gradient(folder: Path):
    cpu, gpu = (use_tree_attention(load_policy(folder)) for _ in range(2))
    (expected, gradients), (got, found) = loss_and_gradient(cpu, torch.device("cpu")), loss_and_gradient(gpu, GPU)
    assert torch.allclose(got, expected, atol=1e-3)
    for one, other in zip(found, gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-2 * float(other.abs().max()))


def test_rows_of_one_length_are_compiled_for_once(llama: Path):
    model = use_tree_attention(load_policy(llama, device=GPU))
    watch = flex.CompilationWatch()
    for seed in range(6):
        row = row_of(random_pairs(random.Random(seed))).to(GPU)
        watch.see(len(row.token_ids))
        with torch.autocast("cuda", torch.bfloat16):
            row_logprobs(model, row).sum().backward()
    assert watch.check() <= flex.GRAPHS * len(watch.lengths)


@pytest.mark.parametrize("lora", [None, LoRA(rank=4, dtype="bfloat16")])
def test_step_dpo_on_the_gpu_is_that_of_the_cpu(llama: Path, lora: LoRA | None):
    losses = []
    for accelerator in ("cpu", "gpu"):
        torch.manual_seed(0)
        trainer = Trainer(accelerator=accelerator, devices=1, max_epochs=1, precision="bf16-mixed", **QUIET)
        trainer.fit(StepDPOModule(str(llama), lr=1e-3, lora=lora), row_loader(plan(), trainer))
        losses.append(trainer.logged_metrics["train/loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_an_export_of_supervised_training_loads_again(llama: Path, tmp_path: Path):
    trainer = Trainer(accelerator="gpu", devices=1, max_epochs=1, **QUIET)
    module = SFTModule(str(llama), export_to=str(tmp_path / "M1"), lr=1e-3)
    trainer.fit(module, row_loader(sft_plan(SOME_ROWS, len(SAMPLES)), trainer))
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "M1").state_dict()
    assert module.policy is not None
    assert all(torch.equal(value.cpu(), exported[name]) for name, value in module.policy.state_dict().items())
    assert trainer.logged_metrics["train/gpu_gb_reserved"] >= trainer.logged_metrics["train/gpu_gb_allocated"] > 0


class Rows(LightningDataModule):
    """Lays the rows out when the ranks are there: a sharded strategy has no mesh before."""

    def train_dataloader(self) -> RowLoader:
        return row_loader(plan_rows(pair_groups(PAIRS, random.Random(0)), 4, 10_000), self.trainer)


def test_fsdp2_on_one_rank_trains_as_one_process_does(llama: Path):
    losses = []
    strategies: list[Any] = ["auto", ShardedStrategy(compute_dtype="float32")]
    for strategy in strategies:
        trainer = Trainer(accelerator="gpu", devices=1, max_epochs=1, strategy=strategy, **QUIET)
        trainer.fit(StepDPOModule(str(llama), lr=1e-3), Rows())
        losses.append(trainer.logged_metrics["train/loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_in_process_engine_decodes_as_generate_does(llama: Path):
    prompts = [(5, 9, 13), (7, 11)]
    engine = LocalEngine(dtype="float32")

    async def ask() -> Any:
        await engine.load_weights(llama, "M1")
        return await engine.generate(prompts, Sampling(16))

    completions = [one for [one] in asyncio.run(ask())]
    model = load_policy(llama, device=GPU).eval()
    for prompt, one in zip(prompts, completions, strict=True):
        ids = torch.tensor([prompt], device=GPU)
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
        assert one.token_ids == tuple(expected[0, len(prompt) :].tolist()[: len(one.token_ids)])


def test_a_base_in_four_bits_is_trained(llama: Path):
    pytest.importorskip("bitsandbytes")
    row = row_of(random_pairs(random.Random(0))).to(GPU)
    policy = load_trainable(llama, LoRA(rank=4, dtype="nf4")).to(GPU)  # type: ignore[arg-type]
    with torch.autocast("cuda", torch.bfloat16):
        row_logprobs(policy, row).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in policy.parameters())
