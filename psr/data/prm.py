"""PRM training data: rated trajectories, each packed into one sequence, as a LightningDataModule.

A sequence is the problem, the chosen steps, then the other candidates of every step, each of which sees only the steps
before it: every token is computed once, and equals what the candidate gets alone after its own prefix. Knows rated
trajectories and token ids; no model weights, no loss.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from psr.data.decontamination import normalized
from psr.data.prm800k import RatedTrajectory, read_trajectories
from psr.errors import UsageError
from psr.evaluation.steps import StepBaselines, step_baselines
from psr.modules.policy import load_tokenizer
from psr.prm_encoding import TEMPLATE, PRMEncoder

UNLABELLED = -100


@dataclass(frozen=True)
class Packed:
    """Parallel tuples over the tokens of a trajectory.

    A token sees the first `shared` tokens, and those from `start` to itself. `labels` is 1 ("+") or 0 ("-") at the last
    token of a rated step, UNLABELLED elsewhere; `lengths` are the tokens of that step.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    shared: tuple[int, ...]
    start: tuple[int, ...]
    labels: tuple[int, ...]
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rated(self) -> list[tuple[int, int]]:
        """(length, label) of every rated step."""
        return [(n, label) for n, label in zip(self.lengths, self.labels, strict=True) if label != UNLABELLED]


def pack(trajectory: RatedTrajectory, encoder: PRMEncoder, neutral: str, max_tokens: int) -> Packed | None:
    """The trajectory in one sequence; candidates that would exceed `max_tokens` are left out. None if none is left."""
    head = encoder.head(trajectory.problem)
    main, marks, branches = list(head), {}, []
    for step in trajectory.steps:
        here = len(main)
        for i, (text, rating) in enumerate(step.candidates):
            own, label = encoder.step(text), _label(rating, neutral)
            if i == step.chosen:
                main.extend(own)
                marks[len(main) - 1] = (label, len(own))
            else:
                branches.append((here, own, label))
    if len(main) > max_tokens:
        return None
    ids, positions = list(main), list(range(len(main)))
    shared, start = [0] * len(main), [0] * len(main)
    for here, branch, label in branches:
        if label == UNLABELLED or len(ids) + len(branch) > max_tokens:
            continue
        shared += [here] * len(branch)
        start += [len(ids)] * len(branch)
        positions += range(here, here + len(branch))
        ids += branch
        marks[len(ids) - 1] = (label, len(branch))
    labels, lengths = zip(*(marks.get(i, (UNLABELLED, 0)) for i in range(len(ids))), strict=True)
    if all(label == UNLABELLED for label in labels):
        return None
    return Packed(tuple(ids), tuple(positions), tuple(shared), tuple(start), labels, lengths)


def _label(rating: int | None, neutral: str) -> int:
    if rating is None:
        return UNLABELLED
    if rating == 0:
        return {"+": 1, "-": 0, "skip": UNLABELLED}[neutral]
    return int(rating > 0)


def collate_packed(samples: Sequence[Packed]) -> dict[str, Tensor]:
    """`input_ids`, `position_ids`, `labels` (rows, longest); `attention_mask` (rows, 1, longest, longest), boolean."""
    longest = max(map(len, samples))
    batch = {name: torch.zeros(len(samples), longest, dtype=torch.long) for name in ("input_ids", "position_ids")}
    labels = torch.full((len(samples), longest), UNLABELLED)
    shared = torch.zeros(len(samples), longest, 1, dtype=torch.long)
    start = torch.arange(longest).view(1, -1, 1).repeat(len(samples), 1, 1)  # padding sees itself: no row may be empty
    for i, sample in enumerate(samples):
        n = len(sample)
        batch["input_ids"][i, :n] = torch.tensor(sample.ids)
        batch["position_ids"][i, :n] = torch.tensor(sample.positions)
        labels[i, :n] = torch.tensor(sample.labels)
        shared[i, :n, 0] = torch.tensor(sample.shared)
        start[i, :n, 0] = torch.tensor(sample.start)
    keys, queries = torch.arange(longest), torch.arange(longest)[:, None]
    mask = (keys < shared) | ((keys >= start) & (keys <= queries))
    return {**batch, "labels": labels, "attention_mask": mask[:, None]}


class PRMDataModule(LightningDataModule):
    """Rated trajectories for `PRMModule`, one packed sequence each; training and held-out problems are disjoint.

    Args:
        model: Hugging Face folder whose tokenizer is used; linked to the model's.
        trajectories: "prm800k" or another hub set, or a file of rated trajectories, PRM800K's or ours, or EFT pairs.
        val_share: share of the problems that is held out.
        neutral: what the rating 0 becomes: "+", as in the paper of PRM800K, "-", or "skip".
        batch_size: trajectories per batch and device.
        max_tokens: longer solutions are left out, and candidates of others that do not fit; both are counted.
        limit: only the first so many trajectories.
        seed: split and order.
        template: what the PRM reads before the steps.
    """

    def __init__(
        self,
        model: str,
        trajectories: str,
        val_share: float = 0.1,
        neutral: Literal["+", "-", "skip"] = "+",
        batch_size: int = 8,
        max_tokens: int = 2048,
        limit: int | None = None,
        seed: int = 0,
        template: str = TEMPLATE,
    ) -> None:
        super().__init__()
        if not 0 < val_share < 1:
            raise UsageError(f"data.val_share is {val_share}: it must lie between 0 and 1")
        self.encoder = PRMEncoder(load_tokenizer(model), template)
        self.trajectories, self.val_share, self.neutral = trajectories, val_share, neutral
        self.batch_size, self.max_tokens, self.limit, self.seed = batch_size, max_tokens, limit, seed
        self.train: list[Packed] = []
        self.heldout: list[Packed] = []

    def setup(self, stage: str) -> None:
        rated = read_trajectories(self.trajectories)[: self.limit]
        problems = sorted({normalized(one.problem) for one in rated})
        random.Random(self.seed).shuffle(problems)
        heldout = set(problems[: max(1, round(self.val_share * len(problems)))])
        self.train = self._packed([one for one in rated if normalized(one.problem) not in heldout], "training")
        self.heldout = self._packed([one for one in rated if normalized(one.problem) in heldout], "held-out")
        self.baselines: StepBaselines = step_baselines(self._rated(self.train), self._rated(self.heldout))

    def _packed(self, rated: Sequence[RatedTrajectory], name: str) -> list[Packed]:
        packed = [pack(one, self.encoder, self.neutral, self.max_tokens) for one in rated]
        kept = [one for one in packed if one is not None]
        if not kept:
            raise UsageError(
                f"data.max_tokens is {self.max_tokens}, and of {len(rated)} {name} trajectories of {self.trajectories} "
                "none is so short and has a rated step: raise it, or give more trajectories"
            )
        asked = sum(len(step.candidates) for one in rated for step in one.steps)
        print(f"PRM data, {name}: {len(kept)} of {len(rated)} trajectories, {len(self._rated(kept))} of {asked} steps")
        return kept

    @staticmethod
    def _rated(packed: Sequence[Packed]) -> list[tuple[int, int]]:
        return [pair for one in packed for pair in one.rated]

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        rng = random.Random(f"{self.seed}/{self.trainer.current_epoch if self.trainer else 0}")
        ordered = sorted(rng.sample(self.train, len(self.train)), key=len)
        batches = [ordered[i : i + self.batch_size] for i in range(0, len(ordered), self.batch_size)]
        return DataLoader(rng.sample(batches, len(batches)), batch_size=None, collate_fn=collate_packed)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        ordered = sorted(self.heldout, key=len)
        batches = [ordered[i : i + self.batch_size] for i in range(0, len(ordered), self.batch_size)]
        return DataLoader(batches, batch_size=None, collate_fn=collate_packed)  # type: ignore[arg-type]
