"""Judges: who says which of two candidate steps is better, and what a set of verdicts is worth (equation 2).

A judge is `async def judge(problem, steps, candidates) -> judgements`. Judges know the problem's text and the texts of
steps; none is ever handed an answer.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, Protocol

from psr.encoding import Encoder
from psr.engines.base import Engine, Origin, Sampling
from psr.errors import UsageError
from psr.prompts import VERDICTS
from psr.records import Candidate, Judgement, Problem


class Judge(Protocol):
    async def __call__(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]: ...


@dataclass(frozen=True)
class JudgeSettings:
    """Who judges, and how.

    Args:
        kind: "self" is the policy itself; "prm" is a process reward model; "random" and "verifier" are debug judges,
            the floor and the ceiling.
        verdicts: "explain" generates the explanation and parses the verdict; "logprob" compares the log-probabilities
            of the two verdict tokens right after the prompt, with no decoding.
        orders: "both" asks every pair in both orders and counts only agreement; "one" asks once.
        max_tokens: an explanation that is longer has no verdict.
        seed: seed of the random judge.
    """

    kind: Literal["self", "random", "verifier", "prm"] = "self"
    verdicts: Literal["explain", "logprob"] = "explain"
    orders: Literal["both", "one"] = "both"
    max_tokens: int = 512
    seed: int = 0


Verifier = Callable[[str, Sequence[str], str], bool]
"""(problem, previous steps, candidate step) -> whether that step is right; exact, for procedural problems."""


def comparisons(candidates: Sequence[Candidate], orders: str) -> Iterator[tuple[int, int]]:
    """The questions to ask: every pair of distinct candidate texts, in both orders or one."""
    firsts = {candidate.text: i for i, candidate in reversed(list(enumerate(candidates)))}
    for i, j in combinations(sorted(firsts.values()), 2):
        yield i, j
        if orders == "both":
            yield j, i


def scores(candidates: Sequence[Candidate], judgements: Sequence[Judgement]) -> tuple[int, ...]:
    """Score(i) = number of j != i such that i is judged better than j (equation 2).

    A pair that was asked in both orders counts only where both verdicts name the same winner. Candidates of the same
    text share their verdicts, and never beat each other.
    """
    verdicts: dict[frozenset[int], list[int | None]] = {}
    for judgement in judgements:
        verdicts.setdefault(frozenset((judgement.first, judgement.second)), []).append(judgement.winner)
    beats = set()
    for pair, winners in verdicts.items():
        if winners[0] is not None and len(set(winners)) == 1:
            [loser] = pair - {winners[0]}
            beats.add((candidates[winners[0]].text, candidates[loser].text))
    return tuple(sum((one.text, other.text) in beats for other in candidates) for one in candidates)


@dataclass(frozen=True)
class SelfJudge:
    """The policy judges its own candidates, pairwise, greedily decoded."""

    engine: Engine
    encoder: Encoder
    settings: JudgeSettings

    async def __call__(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]:
        asked = list(comparisons(candidates, self.settings.orders))
        if not asked:
            return []
        so_far = "".join(steps)
        prompts = [
            self.encoder.judge(problem.problem, so_far, candidates[i].text, candidates[j].text) for i, j in asked
        ]
        replies = await verdicts(self.engine, self.encoder, prompts, self.settings, problem.id)
        winners = [
            None if label is None else pair[VERDICTS.index(label)]
            for pair, (label, _) in zip(asked, replies, strict=True)
        ]
        return [
            Judgement(i, j, winner, text) for (i, j), winner, (_, text) in zip(asked, winners, replies, strict=True)
        ]


async def verdicts(
    engine: Engine, encoder: Encoder, prompts: Sequence[tuple[int, ...]], settings: JudgeSettings, key: str = ""
) -> list[tuple[str | None, str]]:
    """(label, text that led to it) for each judge prompt; the label is "A", "B" or None where it cannot be parsed.

    `key` is the id of the problem that all the prompts are about, if they are about one.
    """
    origin = Origin(key, "verdicts")
    if settings.verdicts == "logprob":
        shared, choices = encoder.verdict_choices()
        logprobs = await engine.choice_logprobs([prompt + shared for prompt in prompts], choices, origin)
        return [(VERDICTS[int(b > a)], f"log p(A) = {a:.3f}, log p(B) = {b:.3f}") for a, b in logprobs]
    stops = tuple(encoder.prompts.verdict_text(label) for label in VERDICTS)
    completions = await engine.generate(prompts, Sampling(max_new_tokens=settings.max_tokens, stop=stops), origin)
    return [(encoder.prompts.parse_verdict(c.text), c.text) for [c] in completions]


@dataclass(frozen=True)
class RandomJudge:
    """A coin toss for every question, fixed by the seed: what remains without any judgement."""

    settings: JudgeSettings

    async def __call__(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]:
        judgements = []
        for i, j in comparisons(candidates, self.settings.orders):
            key = f"{self.settings.seed}/{problem.id}/{''.join(steps)}/{candidates[i].text}/{candidates[j].text}"
            judgements.append(Judgement(i, j, random.Random(key).choice((i, j)), "coin toss"))
        return judgements


@dataclass(frozen=True)
class VerifierJudge:
    """A right step beats a wrong one; between two right or two wrong ones there is no winner."""

    verifier: Verifier
    settings: JudgeSettings

    async def __call__(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]:
        right = [self.verifier(problem.problem, steps, candidate.text) for candidate in candidates]
        return [
            Judgement(i, j, None if right[i] == right[j] else (i if right[i] else j), "verifier")
            for i, j in comparisons(candidates, self.settings.orders)
        ]


def build_judge(
    settings: JudgeSettings, engine: Engine, encoder: Encoder, verifier: Verifier | None, prm: Judge | None = None
) -> Judge:
    """The judge that the settings name. Raises UsageError for the kinds "verifier" and "prm" without one."""
    if settings.kind == "prm":
        if prm is None:
            raise UsageError("judge.kind is 'prm', and there is no data.prm: name its model and engine there")
        return prm
    if settings.kind == "random":
        return RandomJudge(settings)
    if settings.kind == "self":
        return SelfJudge(engine, encoder, settings)
    if verifier is None:
        raise UsageError("judge.kind is 'verifier', and there is no data.verifier: only procedural problems have one")
    return VerifierJudge(verifier, settings)
