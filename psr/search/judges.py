"""Judges: which of two candidate steps is better, and the scores that follow from a set of verdicts (equation 2).

A judge is `async def judge(problem, steps, candidates) -> judgements`. Judges know the problem's text and the texts of
steps; none is ever given a reference answer.
"""

import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Literal, Protocol

from psr.bounds import Count, Seed, Temperature, bounded
from psr.engines.base import Engine, Origin, Sampling
from psr.errors import UsageError
from psr.prompts.encoder import Encoder
from psr.prompts.templates import SCORES, VERDICTS
from psr.records import Candidate, Judgement, Problem, Verifier
from psr.search.rounds import ROUNDS, Comparisons, Orders, Question, distinct


class Judge(Protocol):
    async def __call__(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]: ...


@bounded("judge")
@dataclass(frozen=True)
class JudgeSettings:
    """Who judges, and how.

    Args:
        kind: "self" is the policy itself; "prm" is a process reward model; "random" and "verifier" are the lower and
            the upper bound, for debugging.
        verdicts: "explain" generates the explanation and parses the verdict; "logprob" compares the log-probabilities
            of the two verdict tokens right after the prompt, with no decoding.
        orders: "both" asks every pair in both orders and counts only agreement; "one" asks once.
        comparisons: "round_robin" compares every pair of distinct candidates (the paper's); "adaptive" stops as soon as
            the best and the worst are settled, the same ones with fewer questions; "knockout" is a tournament with
            fewer questions still, whose best and worst may be others.
        max_tokens: most tokens of an explanation; one that is longer has no verdict.
        seed: seed of the random judge, and of sampled scores.
        form: "pairwise" asks which of two candidates is better; "score" asks for a score from 0 to 5 of each, and the
            higher one wins (SRLM); it has no orders, comparisons or verdicts.
        score_temperature: sampling temperature of scores; 0 is greedy.
        score_samples: how many scores of a candidate are averaged; more than one need a temperature.
    """

    kind: Literal["self", "random", "verifier", "prm"] = "self"
    verdicts: Literal["explain", "logprob"] = "explain"
    orders: Orders = "both"
    comparisons: Comparisons = "round_robin"
    max_tokens: Count = 512
    seed: Seed = 0
    form: Literal["pairwise", "score"] = "pairwise"
    score_temperature: Temperature = 0.0
    score_samples: Count = 1

    def __post_init__(self) -> None:
        if self.score_samples > 1 and self.score_temperature == 0:
            raise ValueError(
                f"judge.score_samples is {self.score_samples} and score_temperature 0, so that all are the same: "
                "set score_temperature, for instance to 0.7"
            )


def scores(candidates: Sequence[Candidate], judgements: Sequence[Judgement]) -> tuple[int, ...]:
    """Score(i) = number of j != i such that i is judged better than j (equation 2).

    A pair that was asked in both orders counts only where both verdicts name the same winner. Candidates with the same
    text share their verdicts and never beat each other. A pair that was not asked is decided by transitivity, where one
    of the two beats the other through others and not the other way round: this adds nothing after `round_robin`,
    changes neither the best nor the worst after `adaptive`, and is what `knockout` relies on.
    """
    verdicts: dict[frozenset[int], list[int | None]] = {}
    for judgement in judgements:
        verdicts.setdefault(frozenset((judgement.first, judgement.second)), []).append(judgement.winner)
    beats = set()
    for pair, winners in verdicts.items():
        # Orders that disagree show position bias, not a preference: the pair counts for neither side.
        if winners[0] is not None and len(set(winners)) == 1:
            [loser] = pair - {winners[0]}
            beats.add((candidates[winners[0]].text, candidates[loser].text))
    # By text from here on: only the first of several equal candidates was asked about.
    asked = {frozenset(candidates[i].text for i in pair) for pair in verdicts}
    texts = {candidate.text for candidate in candidates}
    above = {text: _reached(text, beats) for text in texts}
    # `above` was computed before any pair is added, so that the result does not depend on the order of this loop.
    for one, other in permutations(texts, 2):
        if frozenset((one, other)) not in asked and other in above[one] and one not in above[other]:
            beats.add((one, other))
    # Over candidates, not texts: beating a text that was sampled twice counts as two wins, as in equation 2.
    return tuple(sum((one.text, other.text) in beats for other in candidates) for one in candidates)


def _reached(text: str, beats: Collection[tuple[str, str]]) -> set[str]:
    """The candidates that `text` beats, directly or through others (transitive closure)."""
    reached: set[str] = set()
    waiting = [text]
    while waiting:
        one = waiting.pop()
        new = {loser for winner, loser in beats if winner == one} - reached
        reached |= new
        waiting.extend(new)
    return reached


async def hold(
    candidates: Sequence[Candidate],
    settings: JudgeSettings,
    ask: Callable[[list[Question]], Awaitable[list[Judgement]]],
) -> list[Judgement]:
    """All judgements on the candidates, round after round as `settings.comparisons` says.

    `ask` answers the questions of a round; all of them can be in flight together.
    """
    # A generator decides what to ask next from the winners that it is sent; it never sees a prompt.
    rounds = ROUNDS[settings.comparisons](distinct(candidates), settings.orders)
    judgements: list[Judgement] = []
    questions = next(rounds, [])
    while questions:
        replies = await ask(questions)
        judgements += replies
        try:
            questions = rounds.send([judgement.winner for judgement in replies])
        except StopIteration:
            break
    return judgements


async def ask_pairwise(
    candidates: Sequence[Candidate],
    settings: JudgeSettings,
    ask: Callable[[Sequence[tuple[str, str]]], Awaitable[list[tuple[str | None, str]]]],
) -> list[Judgement]:
    """All judgements, where `ask` tells of every pair of texts (shown as A, shown as B) the label and its reasons."""

    async def judged(questions: list[Question]) -> list[Judgement]:
        # A question (i, j) shows i as A and j as B, so a label picks the winner's index out of the question.
        replies = await ask([(candidates[i].text, candidates[j].text) for i, j in questions])
        return [
            Judgement(*question, None if label is None else question[VERDICTS.index(label)], text)
            for question, (label, text) in zip(questions, replies, strict=True)
        ]

    return await hold(candidates, settings, judged)


@dataclass(frozen=True)
class SelfJudge:
    """The policy judges its own candidates, pairwise, greedily decoded."""

    engine: Engine
    encoder: Encoder
    settings: JudgeSettings

    async def __call__(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]:
        so_far = "".join(steps)

        async def ask(pairs: Sequence[tuple[str, str]]) -> list[tuple[str | None, str]]:
            prompts = [self.encoder.judge(problem.problem, so_far, a, b) for a, b in pairs]
            return await verdicts(self.engine, self.encoder, prompts, self.settings, problem.id)

        return await ask_pairwise(candidates, self.settings, ask)


async def verdicts(
    engine: Engine, encoder: Encoder, prompts: Sequence[tuple[int, ...]], settings: JudgeSettings, key: str = ""
) -> list[tuple[str | None, str]]:
    """(label, judge's text) for each judge prompt; the label is "A", "B" or None where it cannot be parsed.

    `key` is the id of the problem, if all prompts are about the same one.
    """
    origin = Origin(key, "verdicts")
    if settings.verdicts == "logprob":
        # Up to the token at which the two verdicts differ, their text belongs to the prompt.
        shared, choices = encoder.verdict_choices()
        logprobs = await engine.choice_logprobs([prompt + shared for prompt in prompts], choices, origin)
        return [(VERDICTS[int(b > a)], f"log p(A) = {a:.3f}, log p(B) = {b:.3f}") for a, b in logprobs]
    # A verdict ends the reply: what a model might say after it costs tokens and decides nothing.
    stops = tuple(encoder.prompts.verdict_text(label) for label in VERDICTS)
    completions = await engine.generate(prompts, Sampling(max_new_tokens=settings.max_tokens, stop=stops), origin)
    return [(encoder.prompts.parse_verdict(c.text), c.text) for [c] in completions]


@dataclass(frozen=True)
class ScoreJudge:
    """The policy scores each candidate on its own, as in Self-Rewarding Language Models (arXiv 2401.10020).

    Of two candidates the one with the higher mean score wins; equal or unparsable scores give no winner. The text of a
    judgement holds what the policy said about both candidates.
    """

    engine: Engine
    encoder: Encoder
    settings: JudgeSettings

    async def __call__(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]:
        so_far, firsts = "".join(steps), list(distinct(candidates))
        if len(firsts) < 2:  # nothing to compare: no request
            return []
        prompts = [self.encoder.score(problem.problem, so_far, candidates[i].text) for i in firsts]
        replies = await score_replies(self.engine, self.encoder, prompts, self.settings, problem.id)
        told = dict(zip(firsts, replies, strict=True))

        # Scores as pairwise judgements, so that search, traces and statistics need no second form.
        def judgement(i: int, j: int) -> Judgement:
            (one, one_text), (other, other_text) = told[i], told[j]
            even = one is None or other is None or one == other
            text = f"score {_rounded(one)}: {one_text}\nscore {_rounded(other)}: {other_text}"
            return Judgement(i, j, None if even else i if one > other else j, text)  # type: ignore[operator]

        return [judgement(i, j) for i, j in combinations(firsts, 2)]


def _rounded(score: float | None) -> str:
    return "none" if score is None else f"{score:.3g}"


async def score_replies(
    engine: Engine, encoder: Encoder, prompts: Sequence[tuple[int, ...]], settings: JudgeSettings, key: str = ""
) -> list[tuple[float | None, str]]:
    """(mean score, text of the first sample) for each score prompt; None where no score can be parsed.

    `key` is the id of the problem, if all prompts are about the same one.
    """
    sampling = Sampling(
        max_new_tokens=settings.max_tokens,
        temperature=settings.score_temperature,
        n=settings.score_samples,
        seed=settings.seed,
        stop=tuple(encoder.prompts.score_text(score) for score in SCORES),
    )
    replies = []
    for completions in await engine.generate(prompts, sampling, Origin(key, "verdicts")):
        parsed = [encoder.prompts.parse_score(one.text) for one in completions]
        given = [score for score in parsed if score is not None]  # unparsable samples are left out, not counted as 0
        replies.append((sum(given) / len(given) if given else None, completions[0].text))
    return replies


@dataclass(frozen=True)
class RandomJudge:
    """A coin toss for every question, fixed by the seed: the baseline without any judgement."""

    settings: JudgeSettings

    async def __call__(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]:
        async def ask(questions: list[Question]) -> list[Judgement]:
            return [Judgement(i, j, toss(i, j), "coin toss") for i, j in questions]

        # Seeded by the question itself: a resumed search, which asks in another order, gets the same verdicts.
        def toss(i: int, j: int) -> int:
            key = f"{self.settings.seed}/{problem.id}/{''.join(steps)}/{candidates[i].text}/{candidates[j].text}"
            return random.Random(key).choice((i, j))

        return await hold(candidates, self.settings, ask)


@dataclass(frozen=True)
class VerifierJudge:
    """A correct step beats any other; between two correct steps, or two that are not, there is no winner."""

    verifier: Verifier
    settings: JudgeSettings

    async def __call__(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]:
        right = [bool(self.verifier(problem.problem, steps, candidate.text)) for candidate in candidates]

        async def ask(questions: list[Question]) -> list[Judgement]:
            winners = (None if right[i] == right[j] else i if right[i] else j for i, j in questions)
            return [
                Judgement(*question, winner, "verifier") for question, winner in zip(questions, winners, strict=True)
            ]

        return await hold(candidates, self.settings, ask)


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
        return (SelfJudge if settings.form == "pairwise" else ScoreJudge)(engine, encoder, settings)
    if verifier is None:
        raise UsageError("judge.kind is 'verifier', and there is no data.verifier: only procedural problems have one")
    return VerifierJudge(verifier, settings)
