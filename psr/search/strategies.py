"""Test-time search: ways to solve a problem with several samples, each a plain coroutine: problem in, Solution out.

Knows engines, judges and the step search. Does not know any answer, files, or how many problems there are.
"""

import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from psr.answers import extract_boxed
from psr.engines.base import Completion, Engine, Origin, PromptTooLong, Sampling
from psr.prompts.encoder import Encoder
from psr.records import Candidate, Judgement, Problem, StepNode, to_json
from psr.search.judges import Judge, JudgeSettings, build_judge, scores
from psr.search.step_search import SearchSettings, expand, sample_steps, step_search

Method = Literal["greedy", "majority", "best_of_n", "step", "beam"]


@dataclass(frozen=True)
class StrategySettings:
    """How problems are solved.

    Args:
        width: solutions sampled for `majority` and `best_of_n`, candidates per step for `step` and `beam`.
        beam: partial solutions that `beam` keeps.
        temperature: sampling temperature; `greedy` has none.
        top_p: nucleus of what is sampled.
        max_tokens: a whole solution is cut off at this many tokens.
        max_step_tokens: a step is cut off at this many tokens.
        max_steps: most steps of a solution.
        seed: seed of the sampling; every problem derives its own.
    """

    width: int = 6
    beam: int = 2
    temperature: float = 0.5
    top_p: float = 0.95
    max_tokens: int = 1024
    max_step_tokens: int = 256
    max_steps: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "beam", "max_tokens", "max_step_tokens", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"strategy.{name} is {getattr(self, name)}: it must be at least 1")


@dataclass(frozen=True)
class Solution:
    """The solution that a strategy chose; `trace` is what it chose from, ready for JSON."""

    text: str
    finished: bool
    trace: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Means:
    """What a strategy works with: engine, encoder, judge and settings."""

    engine: Engine
    encoder: Encoder
    judge: JudgeSettings
    settings: StrategySettings
    prm: Judge | None = None

    async def judgements(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]:
        """Judged by the policy itself or by the process reward model; of a candidate of several steps, a PRM rates only
        the last.
        """
        judge = build_judge(self.judge, self.engine, self.encoder, None, self.prm)
        return await judge(problem, steps, candidates)

    async def solutions(self, problem: Problem, n: int, temperature: float) -> list[Completion]:
        """Whole solutions."""
        seed = zlib.crc32(f"{self.settings.seed}/{problem.id}".encode())
        sampling = Sampling(self.settings.max_tokens, temperature, self.settings.top_p, n, seed)
        prompts = [self.encoder.reason(problem.problem)]
        [completions] = await self.engine.generate(prompts, sampling, Origin(problem.id, "solutions"))
        return completions

    def search_settings(self) -> SearchSettings:
        some = self.settings
        return SearchSettings(
            some.width, some.temperature, some.top_p, some.max_steps, some.max_step_tokens, "advance", some.seed
        )


async def greedy(problem: Problem, means: Means) -> Solution:
    """Greedy decoding."""
    [one] = await means.solutions(problem, 1, 0.0)
    return Solution(one.text, one.finish_reason == "eos")


async def majority(problem: Problem, means: Means) -> Solution:
    """Majority voting (self-consistency): the first sampled solution with the most frequent boxed answer."""
    sampled = await means.solutions(problem, means.settings.width, means.settings.temperature)
    answers = [(extract_boxed(one.text) or "").replace(" ", "") for one in sampled]
    votes = Counter(answer for answer in answers if answer)
    # Equal counts: the answer that was sampled first, as a Counter keeps the order of insertion.
    chosen = answers.index(votes.most_common(1)[0][0]) if votes else 0
    finished = [one.finish_reason == "eos" for one in sampled]
    trace = {"solutions": [one.text for one in sampled], "finished": finished, "votes": dict(votes), "chosen": chosen}
    return Solution(sampled[chosen].text, finished[chosen], trace)


async def best_of_n(problem: Problem, means: Means) -> Solution:
    """The sampled solution that the judge prefers: the one with the most wins among those that are finished."""
    sampled = await means.solutions(problem, means.settings.width, means.settings.temperature)
    finished = tuple(
        Candidate(one.token_ids, one.text, one.logprob, final=True) for one in sampled if one.finish_reason == "eos"
    )
    trace: dict[str, Any] = {"solutions": [one.text for one in finished]}
    if not finished:
        return Solution(sampled[0].text, False, trace)
    try:
        # A whole solution judged as if it were one step: the same scores and the same rule for ties.
        node = expand(0, finished, await means.judgements(problem, [], finished), means.search_settings())
    except PromptTooLong:  # two whole solutions do not fit into a judge prompt: the first is as good as any
        return Solution(finished[0].text, True, trace)
    trace |= {"judgements": list(map(asdict, node.judgements)), "scores": node.scores, "chosen": node.chosen}
    return Solution(finished[node.chosen].text, True, trace)


async def step(problem: Problem, means: Means) -> Solution:
    """Step search with self-judging: the best candidate of every step is kept (the paper's test-time scaling)."""
    trajectory = await step_search(problem, means.engine, means.judgements, means.encoder, means.search_settings())
    return Solution(trajectory.solution, trajectory.finished, {"trajectory": to_json(trajectory)})


async def beam(problem: Problem, means: Means) -> Solution:
    """Beam search over steps.

    Each partial solution is extended by `width` candidates, of which the `beam` with the most wins stay. All that stay
    are judged against each other as whole partial solutions, and the `beam` with the most wins form the next beam.
    Finished solutions stay in the comparison. The solution is the first finished one of the last beam, if any is.
    """
    settings = means.settings
    prompt = means.encoder.reason(problem.problem)
    kept: list[list[Candidate]] = [[]]
    rounds: list[dict[str, Any]] = []
    for number in range(settings.max_steps):
        pool: list[list[Candidate]] = []
        nodes: list[StepNode] = []
        try:
            for place, steps in enumerate(kept):
                if steps and steps[-1].final:  # nothing to extend, but it has to hold its place against the others
                    pool.append(steps)
                    continue
                node = await _continue(problem, means, prompt, steps, number * settings.beam + place)
                nodes.append(node)
                # First among siblings: the next step after one prefix is what the judge was trained to compare. Only
                # the survivors are then compared across prefixes.
                pool += [[*steps, one] for one in _ahead(node.candidates, node.scores, settings.beam)]
            wholes = tuple(_whole(steps) for steps in pool)
            judgements = await means.judgements(problem, [], wholes) if len(pool) > settings.beam else []
        except PromptTooLong:  # of a partial solution: the beam of the round before is the result
            if number == 0:
                raise
            break
        if not pool:
            break
        wins = scores(wholes, judgements)  # all 0 where the pool fits into the beam and nothing was asked
        kept = [pool[wholes.index(one)] for one in _ahead(wholes, wins, settings.beam)]
        rounds.append({"nodes": list(map(asdict, nodes)), "judgements": list(map(asdict, judgements)), "scores": wins})
        if all(steps[-1].final for steps in kept):
            break
    chosen = next((steps for steps in kept if steps and steps[-1].final), kept[0])
    text = "".join(one.text for one in chosen)
    return Solution(text, bool(chosen) and chosen[-1].final, {"rounds": rounds})


def _ahead(candidates: Sequence[Candidate], wins: Sequence[int], count: int) -> list[Candidate]:
    """The `count` distinct candidates with the most wins, the first ones where wins are equal."""
    # Reversed, so that of equal texts the first one overwrites the later ones.
    firsts = {one.text: (-won, i) for i, (one, won) in reversed(list(enumerate(zip(candidates, wins, strict=True))))}
    return [candidates[i] for _, i in sorted(firsts.values())[:count]]


async def _continue(
    problem: Problem, means: Means, prompt: tuple[int, ...], steps: list[Candidate], number: int
) -> StepNode:
    """Candidates for the step after `steps`, judged."""
    settings = means.search_settings()
    prefix = prompt + tuple(token for one in steps for token in one.token_ids)
    candidates, _ = await sample_steps(problem, prefix, number, means.engine, means.encoder, settings)
    judgements = await means.judgements(problem, [one.text for one in steps], candidates)
    return expand(len(steps), candidates, judgements, settings)


def _whole(steps: list[Candidate]) -> Candidate:
    """A partial solution as one candidate."""
    ids = tuple(token for one in steps for token in one.token_ids)
    return Candidate(ids, "".join(one.text for one in steps), sum(one.logprob for one in steps), steps[-1].final)


STRATEGIES: dict[Method, Callable[[Problem, Means], Awaitable[Solution]]] = {
    "greedy": greedy,
    "majority": majority,
    "best_of_n": best_of_n,
    "step": step,
    "beam": beam,
}
