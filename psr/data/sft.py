"""Supervised data: IFT (how to reason) and EFT (how to judge) mixed, as a LightningDataModule.

Knows the JSONL schemas, the prompts and the tokenizer. Does not know the model's weights or the loss.

IFT rows: `problem`, `solution` (one step a line), optionally `answer`. Judged pairs and scored
rows: psr/prompts/judged.py.
"""

import random
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from psr.curation.segmenting import with_box
from psr.data.rows import check_accumulation, data_rank, row_loader
from psr.errors import UsageError
from psr.files.tables import read_table
from psr.policy.tokenizer import context_tokens, load_tokenizer
from psr.prompts.encoder import Encoder
from psr.prompts.judged import judge_prompts, read_pairs, read_scored, score_prompt
from psr.prompts.templates import Prompts
from psr.trees.packing import Plan, Row, Unit, plan_rows
from psr.trees.step_tree import Sample


def ift_samples(path: str, encoder: Encoder, limit: int | None = None) -> list[Sample]:
    """One sample per worked solution: the reasoning prompt, and the steps in the step format."""
    samples = []
    for row in read_table(path, ["problem", "solution"], ["answer"])[:limit]:
        lines = [line for line in row["solution"].strip().split("\n") if line.strip()]
        text = encoder.prompts.format_steps(with_box(lines, row.get("answer")))
        samples.append(Sample(encoder.reason(row["problem"]), encoder.completion(text)))
    return samples


def eft_samples(path: str, encoder: Encoder, limit: int | None = None) -> list[Sample]:
    """Two samples per pair, one for each order in which a judge may see it; the verdict comes last."""
    samples = []
    for row in read_pairs(path, limit):
        for prompt, label, explanation in judge_prompts(row, encoder):
            samples.append(Sample(prompt, encoder.completion(explanation + encoder.prompts.verdict_text(label))))
    return samples


def score_samples(path: str, encoder: Encoder, limit: int | None = None) -> list[Sample]:
    """One sample per scored step or response; the score comes last."""
    samples = []
    for row in read_scored(path, limit):
        prompt = score_prompt(row, "response", encoder)
        told = row.get("explanation", "") + encoder.prompts.score_text(row["score"])
        samples.append(Sample(prompt, encoder.completion(told)))
    return samples


class SFTDataModule(LightningDataModule):
    """IFT and EFT mixed, shuffled and packed.

    `trainer.reload_dataloaders_every_n_epochs: 1` reshuffles at every epoch.

    Args:
        model: Hugging Face folder whose tokenizer is used; linked to the model's.
        ift: JSONL of worked solutions.
        eft: JSONL of judged pairs of steps or responses, or several such files; without it only reasoning is taught.
        scores: JSONL of scored steps or responses, for a judge that scores (SRLM).
        val_ift: JSONL of held-out solutions for the validation loss.
        batch_size: samples per optimizer step.
        row_tokens: token budget of a row of samples: more needs more memory and less time. The gradient of an optimizer
            step is accumulated over as many rows as its samples need.
        max_tokens: longer samples are left out, and counted on the terminal, as are those that the model cannot take.
        limit: use only the first so many rows of each file.
        ift_limit: use only the first so many worked solutions, which gives the judge data more weight.
        seed: order of the samples.
        prompts: templates and step format.
    """

    def __init__(
        self,
        model: str,
        ift: str,
        eft: str | list[str] | None = None,
        scores: str | None = None,
        val_ift: str | None = None,
        batch_size: int = 32,
        row_tokens: int = 4096,
        max_tokens: int = 2048,
        limit: int | None = None,
        ift_limit: int | None = None,
        seed: int = 0,
        prompts: Prompts | None = None,
    ) -> None:
        super().__init__()
        self.model, self.ift, self.scores, self.val_ift = model, ift, scores, val_ift
        self.eft = [eft] if isinstance(eft, str) else eft or []
        self.batch_size, self.row_tokens, self.max_tokens, self.seed = batch_size, row_tokens, max_tokens, seed
        self.limit, self.ift_limit = limit, ift_limit
        self.prompts = prompts or Prompts()
        self.train_samples: list[Sample] = []
        self.val_samples: list[Sample] = []

    def setup(self, stage: str) -> None:
        check_accumulation(self.trainer)
        encoder = Encoder(load_tokenizer(self.model), self.prompts)
        self.train_samples = self._fitting(ift_samples(self.ift, encoder, self.ift_limit or self.limit))
        for eft in self.eft:
            self.train_samples += self._fitting(eft_samples(eft, encoder, self.limit))
        if self.scores:
            self.train_samples += self._fitting(score_samples(self.scores, encoder, self.limit))
        self.val_samples = self._fitting(ift_samples(self.val_ift, encoder, self.limit)) if self.val_ift else []

    def _fitting(self, samples: list[Sample]) -> list[Sample]:
        longest = min(self.max_tokens, context_tokens(self.model))
        kept = [sample for sample in samples if len(sample) <= longest]
        if not kept:
            raise UsageError(
                f"data.max_tokens is {self.max_tokens} and the model takes up to {context_tokens(self.model)}: none of "
                f"{len(samples)} samples is so short"
            )
        if len(kept) < len(samples):
            print(f"SFT data: {len(samples) - len(kept)} of {len(samples)} samples exceed {longest} tokens")
        return kept

    def train_dataloader(self) -> DataLoader[Row]:
        epoch = self.trainer.current_epoch if self.trainer else 0
        rng = random.Random(self.seed * 1000 + epoch)
        shuffled = rng.sample(self.train_samples, len(self.train_samples))
        return row_loader(self.plan(shuffled), self.trainer)

    def val_dataloader(self) -> DataLoader[Row] | list[Any]:
        if not self.val_samples:
            return []
        return row_loader(self.plan(self.val_samples), self.trainer, accumulate=False)

    def plan(self, samples: list[Sample]) -> Plan:
        """The samples packed into rows, each as a tree of its own: no sample attends to another."""
        groups = [(Unit(number, (sample,)),) for number, sample in enumerate(samples)]
        _, ranks = data_rank(self.trainer)
        return plan_rows(groups, self.batch_size, self.row_tokens, mean_over="tokens", ranks=ranks)
