"""PRM training data: rated trajectories as step trees in packed rows, as a LightningDataModule.

The rated steps of a trajectory are samples of one step tree: the prompt is the problem and the steps up to the rated
one, the completion is the label's token. So every token is computed once, and all steps of a trajectory are scored in
one forward pass. Knows rated trajectories and token ids; no model weights, no loss.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from psr.curation.decontamination import normalized
from psr.curation.prm800k import RatedTrajectory, read_trajectories
from psr.data.rows import check_accumulation, data_rank, row_loader
from psr.errors import UsageError
from psr.evaluation.steps import StepBaselines, step_baselines
from psr.policy.tokenizer import context_tokens, load_tokenizer
from psr.prompts.prm import TEMPLATE, PRMEncoder
from psr.trees.packing import Group, Plan, Row, Unit, plan_rows
from psr.trees.step_tree import Sample


@dataclass(frozen=True)
class LabelledStep:
    """The prompt up to the end of a rated step, the step's label, and the step's own tokens."""

    question: tuple[int, ...]
    right: bool
    length: int


def labelled_steps(trajectory: RatedTrajectory, encoder: PRMEncoder, neutral: str) -> Iterator[LabelledStep]:
    """The rated candidates of every step; `neutral` is what the rating 0 becomes: "+", "-" or "skip"."""
    so_far = encoder.head(trajectory.problem)
    for step in trajectory.steps:
        here = so_far
        for i, (text, rating) in enumerate(step.candidates):
            own = encoder.step(text)
            if rating is not None and not (rating == 0 and neutral == "skip"):
                right = rating > 0 or (rating == 0 and neutral == "+")
                yield LabelledStep(here + own, right, len(own))
            if i == step.chosen:
                so_far = here + own


class PRMDataModule(LightningDataModule):
    """Rated trajectories for `PRMModule`, one step tree each; training and held-out problems are disjoint.

    `trainer.reload_dataloaders_every_n_epochs: 1` reshuffles at every epoch.

    Args:
        model: Hugging Face folder whose tokenizer is used; linked to the model's.
        trajectories: "prm800k" or another hub set, or a file of rated trajectories, PRM800K's or ours, or EFT pairs.
        val_share: share of the problems that is held out.
        neutral: what the rating 0 becomes: "+", as in the paper of PRM800K, "-", or "skip".
        batch_size: rated steps per optimizer step; those of one trajectory share a step tree.
        row_tokens: token budget of a micro-batch (a row of step trees): more needs more memory and less time.
            Gradients are accumulated over as many rows as the steps of an optimizer step need.
        max_tokens: steps that end more than this many tokens after the beginning are left out, and counted.
        limit: use only this many trajectories, from the first.
        seed: of the split and the order.
        template: the text before the steps.
    """

    def __init__(
        self,
        model: str,
        trajectories: str,
        val_share: float = 0.1,
        neutral: Literal["+", "-", "skip"] = "+",
        batch_size: int = 64,
        row_tokens: int = 4096,
        max_tokens: int = 2048,
        limit: int | None = None,
        seed: int = 0,
        template: str = TEMPLATE,
    ) -> None:
        super().__init__()
        if not 0 < val_share < 1:
            raise UsageError(f"data.val_share is {val_share}: it must lie between 0 and 1")
        self.encoder = PRMEncoder(load_tokenizer(model), template)
        self.longest = min(max_tokens + 1, context_tokens(model))  # with the label, which is one more token
        self.trajectories, self.val_share, self.neutral = trajectories, val_share, neutral
        self.batch_size, self.row_tokens, self.max_tokens = batch_size, row_tokens, max_tokens
        self.limit, self.seed = limit, seed
        self.train: list[list[LabelledStep]] = []
        self.heldout: list[list[LabelledStep]] = []

    def setup(self, stage: str) -> None:
        check_accumulation(self.trainer)
        rated = read_trajectories(self.trajectories)[: self.limit]
        problems = sorted({normalized(one.problem) for one in rated})
        random.Random(self.seed).shuffle(problems)
        heldout = set(problems[: max(1, round(self.val_share * len(problems)))])
        self.train = self._labelled([one for one in rated if normalized(one.problem) not in heldout], "training")
        self.heldout = self._labelled([one for one in rated if normalized(one.problem) in heldout], "held-out")
        self.baselines: StepBaselines = step_baselines(_lengths(self.train), _lengths(self.heldout))

    def _labelled(self, rated: Sequence[RatedTrajectory], name: str) -> list[list[LabelledStep]]:
        labelled = [list(labelled_steps(one, self.encoder, self.neutral)) for one in rated]
        fitting = [[step for step in steps if len(step.question) < self.longest] for steps in labelled]
        kept = [steps for steps in fitting if steps]
        if not kept:
            raise UsageError(
                f"data.max_tokens is {self.max_tokens}, and of {len(rated)} {name} trajectories of {self.trajectories} "
                "none has a rated step so early: raise it, or give more trajectories"
            )
        steps, asked = sum(map(len, kept)), sum(map(len, labelled))
        print(f"PRM data, {name}: {len(kept)} of {len(rated)} trajectories, {steps} of {asked} rated steps")
        return kept

    def train_dataloader(self) -> DataLoader[Row]:
        rng = random.Random(f"{self.seed}/{self.trainer.current_epoch if self.trainer else 0}")
        return row_loader(self.plan(rng.sample(self.train, len(self.train))), self.trainer)

    def val_dataloader(self) -> DataLoader[Row]:
        return row_loader(self.plan(self.heldout), self.trainer, accumulate=False)

    def plan(self, trajectories: Sequence[Sequence[LabelledStep]]) -> Plan:
        """The trajectories packed into rows, each as a step tree of its own."""
        groups = [self._group(steps) for steps in trajectories]
        return plan_rows(groups, self.batch_size, self.row_tokens, ranks=data_rank(self.trainer)[1])

    def _group(self, steps: Sequence[LabelledStep]) -> Group:
        plus, minus = self.encoder.labels
        samples = (Sample(step.question, (plus if step.right else minus,)) for step in steps)
        return tuple(Unit(number, (sample,)) for number, sample in enumerate(samples))


def _lengths(trajectories: Sequence[Sequence[LabelledStep]]) -> list[tuple[int, int]]:
    """(length, label) of every step, as the baselines take them."""
    return [(step.length, int(step.right)) for steps in trajectories for step in steps]
