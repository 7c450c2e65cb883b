"""The ways in which benchmarks/step_dpo.py trains: each from the same weights, on the same pairs, in the same order.

Each returns its seconds (reference and training, without loading), the tokens of a pass over the data, and the loss of
every optimizer step.
"""

import tempfile
import time
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor
from transformers import PreTrainedModel

from peers import CLIP, PeakMemory, train_with_psr
from psr.modules.losses import Preferences, StepDPOLoss
from psr.modules.step_dpo import StepDPOModule
from psr.policy.folder import load_policy
from psr.policy.tokenizer import load_tokenizer
from psr.trees.packing import Group, Plan, plan_rows
from psr.trees.step_tree import Sample

BETA, RATE, BETAS = 0.1, 1e-5, (0.9, 0.95)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Job:
    """What all ways train: a model folder, the pairs of the trajectories, pairs per optimizer step, tokens of a row."""

    model: str
    groups: tuple[Group, ...]
    batch: int
    row_tokens: int

    @property
    def plan(self) -> Plan:
        return plan_rows(self.groups, self.batch, self.row_tokens)


def pairs_of(job: Job) -> list[tuple[Sample, Sample]]:
    """(chosen, rejected) of every pair, in the order of the step trees' optimizer steps."""
    units = [unit for row in job.plan.rows for tree in row.trees for unit in tree.group]
    return [(unit.samples[0], unit.samples[1]) for unit in units]


class Losses(Callback):
    """The loss of every optimizer step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        if trainer.global_step > len(self.values):
            self.values.append(trainer.callback_metrics["train/loss"].item())


def as_step_trees(job: Job) -> dict[str, Any]:
    """psr itself."""
    plan, losses, memory = job.plan, Losses(), PeakMemory()
    module = StepDPOModule(job.model, lr=RATE, warmup_share=0.0, loss=StepDPOLoss(BETA))
    found = {
        "seconds": train_with_psr(module, plan, [losses, memory]),
        "tokens": sum(tree.tokens for row in plan.rows for tree in row.trees),
        "losses": losses.values,
    }
    return {**found, "peak_memory": memory.bytes} if DEVICE == "cuda" else found


def pair_by_pair(job: Job) -> dict[str, Any]:
    """Every completion with its whole prefix, alone: no padding, no sharing; logits where a completion is predicted."""
    policy, loss, losses = load_policy(job.model, device=DEVICE).train(), StepDPOLoss(BETA), []
    optimizer = torch.optim.AdamW(policy.parameters(), lr=RATE, betas=BETAS, weight_decay=0.0)
    pairs = pairs_of(job)
    started = time.perf_counter()
    with torch.no_grad():
        reference = [torch.stack([completion_logprob(policy, side) for side in pair]) for pair in pairs]
    for start in range(0, len(pairs), job.batch):
        batch, total = range(start, min(start + job.batch, len(pairs))), 0.0
        for number in batch:
            sums = torch.stack([completion_logprob(policy, side) for side in pairs[number]])
            lengths = torch.tensor([[len(side.completion_ids) for side in pairs[number]]], device=DEVICE)
            one = loss(Preferences(sums[None], reference[number][None], lengths))[0].sum() / len(batch)
            one.backward()
            total += float(one.detach())
        torch.nn.utils.clip_grad_norm_(policy.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    tokens = sum(len(side) for pair in pairs for side in pair)
    return {"seconds": time.perf_counter() - started, "tokens": tokens, "losses": losses}


def completion_logprob(policy: PreTrainedModel, sample: Sample) -> Tensor:
    """log p(completion | prompt), float32: a scalar."""
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        ids = torch.tensor([[*sample.prompt_ids, *sample.completion_ids]], device=DEVICE)
        hidden = policy.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, len(sample.prompt_ids) - 1 : -1]
        logits = policy.get_output_embeddings()(hidden)
    targets = torch.tensor(sample.completion_ids, device=DEVICE)
    return -torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")


def by_trl(job: Job, micro_batch: int) -> dict[str, Any]:
    """TRL's DPOTrainer in bf16 autocast with the reference computed first, without activation checkpointing."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class OnTokenIds(DPOTrainer):
        """It would tokenize text; the pairs are token ids already."""

        def _prepare_dataset(self, dataset: Dataset, *arguments: Any) -> Dataset:
            return dataset

    pairs = pairs_of(job)
    rows = [
        {"prompt_ids": c.prompt_ids, "chosen_ids": c.completion_ids, "rejected_ids": r.completion_ids} for c, r in pairs
    ]
    policy, tokenizer = load_policy(job.model), load_tokenizer(job.model)
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            folder, beta=BETA, learning_rate=RATE, adam_beta1=BETAS[0], adam_beta2=BETAS[1], max_grad_norm=CLIP,
            lr_scheduler_type="constant", warmup_steps=0, num_train_epochs=1, per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=job.batch // micro_batch, precompute_ref_log_probs=True, max_length=None,
            gradient_checkpointing=False, bf16=True, use_cpu=DEVICE == "cpu", train_sampling_strategy="sequential",
            logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        started = time.perf_counter()  # the reference's log-probabilities are computed when the trainer is made
        trainer = OnTokenIds(policy, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        trainer.train()
        seconds = time.perf_counter() - started
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"seconds": seconds, "tokens": padded_tokens(pairs, micro_batch), "losses": losses}


def padded_tokens(pairs: list[tuple[Sample, Sample]], micro_batch: int) -> int:
    """Tokens in the rectangles that the pairs are padded to."""
    tokens = 0
    for start in range(0, len(pairs), micro_batch):
        lengths = [len(side) for pair in pairs[start : start + micro_batch] for side in pair]
        tokens += len(lengths) * max(lengths)
    return tokens
