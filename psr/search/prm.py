"""A process reward model (PRM) in search: P("+") of next steps, as scores, and as a judge of pairs.

Knows the PRM's encoding and the Engine protocol. Does not know who proposes the steps, or what the scores are for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from psr.engines.base import Engine, Origin
from psr.errors import UsageError
from psr.policy.tokenizer import check_folder, load_tokenizer
from psr.prompts.prm import TEMPLATE, PRMEncoder
from psr.records import Candidate, Judgement, Problem
from psr.search.judges import JudgeSettings, hold
from psr.search.rounds import Question, distinct


class StepScorer(Protocol):
    """Gives the probability, between 0 and 1, that each of several next steps is correct."""

    async def __call__(self, problem: Problem, steps: Sequence[str], candidates: Sequence[str]) -> list[float]: ...


@dataclass
class PRM:
    """A PRM with an engine of its own; `load` has to be called before it scores.

    Args:
        model: Hugging Face folder that `PRMModule` exported.
        engine: what serves it; not the policy's engine, since an engine serves one model at a time.
        template: the text before the steps that the PRM was trained with.
        margin: as a judge, a candidate beats another only if its P("+") is greater by more than this.
    """

    model: Path
    engine: Engine
    template: str = TEMPLATE
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise UsageError(f"prm.margin is {self.margin}: a difference of probabilities, at least 0 and below 1")
        check_folder(self.model)

    @cached_property
    def encoder(self) -> PRMEncoder:
        return PRMEncoder(load_tokenizer(self.model), self.template)

    async def load(self) -> None:
        """Have the engine serve the PRM, if it does not already."""
        if self.engine.served_version != self.model.name:
            await self.engine.load_weights(self.model, self.model.name)

    async def __call__(self, problem: Problem, steps: Sequence[str], candidates: Sequence[str]) -> list[float]:
        """P("+") of every candidate after `steps`, normalized over "+" and "-"."""
        prompts = [self.encoder.question(problem.problem, [*steps, candidate]) for candidate in candidates]
        asked = await self.engine.choice_logprobs(prompts, self.encoder.labels, Origin(problem.id, "scores"))
        # softmax over the two labels alone, as in training: the other tokens' probability is not a verdict
        return [1 / (1 + math.exp(minus - plus)) for plus, minus in asked]


@dataclass(frozen=True)
class PRMJudge:
    """The candidate with the higher score wins, if by more than `margin`; usable as the judge of any search."""

    scorer: StepScorer
    settings: JudgeSettings
    margin: float = 0.0

    async def __call__(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]:
        if len(distinct(candidates)) < 2:
            return []
        # All scores at once; the rounds then only read them, since comparisons cost no further request.
        plus = await self.scorer(problem, steps, [candidate.text for candidate in candidates])

        async def ask(questions: list[Question]) -> list[Judgement]:
            return [
                Judgement(i, j, _winner(i, j, plus, self.margin), f'P("+") {plus[i]:.4f} against {plus[j]:.4f}')
                for i, j in questions
            ]

        return await hold(candidates, self.settings, ask)


def _winner(i: int, j: int, plus: Sequence[float], margin: float) -> int | None:
    if abs(plus[i] - plus[j]) <= margin:
        return None
    return i if plus[i] > plus[j] else j
