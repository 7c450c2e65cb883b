"""Whether one model writes worse than another, told without a label: both solve the same probe problems.

A judge compares the two solutions of a problem; beside its verdicts stand how many solutions come to an answer, whether
samples agree with it, how long the solutions are, and how far apart the texts. Knows engines, judges and texts; not
which models are compared, or what follows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, pairwise, zip_longest
from typing import Any, Literal

from psr.answers import extract_boxed
from psr.engines.base import Completion, Engine, Origin, PromptTooLong, Sampling
from psr.evaluation.statistics import exact_interval
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.records import Candidate, Problem
from psr.search.judges import Judge, JudgeSettings, build_judge, scores
from psr.search.run import for_each
from psr.search.statistics import mean

Unit = Literal["step", "whole"]
"""What is compared of two solutions: the first step in which they differ, or all of them."""


@dataclass(frozen=True)
class Probe:
    """What a model writes for one probe problem.

    Args:
        problem: the question.
        text: the greedy solution.
        tokens: its length, EOS included.
        answer: what stands in its box; None where it was cut off or boxes nothing.
        sampled: the same of sampled solutions.
    """

    problem: Problem
    text: str
    tokens: int
    answer: str | None
    sampled: tuple[str | None, ...] = ()


def probe_from_json(row: Mapping[str, Any]) -> Probe:
    """The inverse of `dataclasses.asdict`."""
    return Probe(**{**row, "problem": Problem(**row["problem"]), "sampled": tuple(row["sampled"])})


async def probe(
    engine: Engine,
    encoder: Encoder,
    problems: Sequence[Problem],
    max_tokens: int,
    sampling: Sampling | None,
    title: str,
) -> list[Probe]:
    """Solve every problem: once greedily, and by `sampling` if it is given."""
    greedily = Sampling(max_new_tokens=max_tokens)

    async def one(problem: Problem) -> Probe:
        prompt, origin = encoder.reason(problem.problem), Origin(problem.id, "probes")
        try:
            [[greedy]] = await engine.generate([prompt], greedily, origin)
            [samples] = await engine.generate([prompt], sampling, origin) if sampling else [[]]
        except PromptTooLong:  # for the context of a server: no model has an answer
            return Probe(problem, "", 0, None)
        answers = tuple(answer_of(one) for one in samples)
        return Probe(problem, greedy.text, len(greedy.token_ids), answer_of(greedy), answers)

    return await for_each(problems, one, title)


def answer_of(completion: Completion) -> str | None:
    """What the solution boxes, None where it was cut off or boxes nothing."""
    return extract_boxed(completion.text) if completion.finish_reason == "eos" else None


async def outcomes(
    before: Sequence[Probe], after: Sequence[Probe], judge: Judge, prompts: Prompts, unit: Unit, title: str
) -> list[int]:
    """Who wins each problem: 1 the model `after`, -1 the one `before`, 0 nobody.

    A solution that comes to no answer loses against one that does. Else the judge has to prefer the same one in both
    orders; of two equal solutions it is not asked, and of two that are too long for its context nothing is known.
    """

    async def one(both: tuple[Probe, Probe]) -> int:
        old, new = both
        if (old.answer is None) != (new.answer is None):
            return 1 if old.answer is None else -1
        parted = first_difference(old.text, new.text, prompts) if unit == "step" else ([], old.text, new.text)
        if old.text == new.text or parted is None:
            return 0
        steps, *sides = parted
        candidates = [Candidate((), text, 0.0, final=False) for text in sides]
        try:
            older, newer = scores(candidates, await judge(new.problem, steps, candidates))
        except PromptTooLong:  # the judge is shown two solutions, and may have room for one only
            return 0
        return newer - older

    return await for_each(list(zip(before, after, strict=True)), one, title)


def first_difference(one: str, other: str, prompts: Prompts) -> tuple[list[str], str, str] | None:
    """The steps that two solutions begin with, and the next one of each: what a judge of steps has learnt to compare.

    None where there is none, as one merely goes on where the other has ended.
    """
    same: list[str] = []
    for a, b in zip_longest(steps_of(one, prompts), steps_of(other, prompts)):
        if a is None or b is None:
            return None
        # The last step of a solution lacks the separator: that alone is no difference.
        if a.removesuffix(prompts.step_separator) != b.removesuffix(prompts.step_separator):
            return same, a, b
        same.append(a)
    return None


def steps_of(text: str, prompts: Prompts) -> list[str]:
    """The steps of a solution, cut as a search cuts them: a separator ends a step, a marker begins the next."""
    first, *more = text.split(prompts.step_stop)
    steps = [first, *(prompts.step_marker + step for step in more)]
    return [*(step + prompts.step_separator for step in steps[:-1]), steps[-1]]


async def compare(
    engine: Engine,
    encoder: Encoder,
    judging: JudgeSettings,
    before: Sequence[Probe],
    after: Sequence[Probe],
    unit: Unit,
    level: float,
    title: str,
) -> dict[str, Any]:
    """The figures of `comparison` by the verdicts of what `engine` serves, which judges as `judging` says."""
    judge = build_judge(replace(judging, kind="self", orders="both"), engine, encoder, None)
    won = await outcomes(before, after, judge, encoder.prompts, unit, title)
    return comparison(before, after, won, encoder, level)


def comparison(
    before: Sequence[Probe], after: Sequence[Probe], won: Sequence[int], encoder: Encoder, level: float
) -> dict[str, Any]:
    """What the two models' probes look like in numbers; `won` as of `outcomes`.

    `win_share` is of the problems that somebody won, with its exact interval at `level`: `worse` where all of that
    lies below one half. `distance` is that of `divergence`.
    """
    wins, losses = won.count(1), won.count(-1)
    low, high = exact_interval(wins, wins + losses, level)
    return {
        "problems": len(won),
        "wins": wins,
        "losses": losses,
        "win_share": wins / (wins + losses) if wins + losses else None,
        "low": low,
        "high": high,
        "worse": high < 0.5,
        "before": asdict(Writing.of(before)),
        "after": asdict(Writing.of(after)),
        "distance": divergence(*([encoder.plain(one.text) for one in probes] for probes in (before, after))),
    }


@dataclass(frozen=True)
class Writing:
    """How a model writes: shares of solutions with an answer and of samples that agree with it, tokens a solution."""

    finished: float | None
    consistency: float | None
    tokens: float | None

    @classmethod
    def of(cls, probes: Sequence[Probe]) -> "Writing":
        agreed = (one.answer is not None and one.answer == answer for one in probes for answer in one.sampled)
        finished = mean(one.answer is not None for one in probes)
        return cls(finished, mean(agreed), mean(one.tokens for one in probes))


def divergence(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> float:
    """Jensen-Shannon divergence in bits between the pairs of neighbouring tokens of two sets of texts: 0 same, 1 apart.

    0 where a set has no such pair.
    """
    from scipy.spatial.distance import jensenshannon  # type: ignore[import-untyped]

    counts = [Counter(chain.from_iterable(pairwise(ids) for ids in texts)) for texts in (one, other)]
    if not all(counts):
        return 0.0
    every = sorted({*counts[0], *counts[1]})
    return float(jensenshannon(*([count[token] for token in every] for count in counts), base=2)) ** 2
