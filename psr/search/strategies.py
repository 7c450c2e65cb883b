"""Ways to solve a problem with more than one try (test-time search), each a plain coroutine: problem in, Solution out.

Knows engines, judges and the step search. Does not know any answer, files, or how many problems there are.
"""

import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from psr.answers import extract_boxed
from psr.bounds import Count, Nucleus, Seed, Temperature, bounded
from psr.engines.base import Completion, Engine, Origin, PromptTooLong, Sampling
from psr.prompts.encoder import Encoder
from psr.records import Candidate, Judgement, Problem, StepNode, to_json
from psr.search.judges import Judge, JudgeSettings, build_judge, scores
from psr.search.step_search import SearchSettings, expand, sample_steps, step_search

Method = Literal["greedy", "majority", "best_of_n", "step", "beam"]


@bounded("strategy")
@dataclass(frozen=True)
class StrategySettings:
    """How problems are solved.

    Args:
        width: solutions sampled for `majority` and `best_of_n`, candidates per step for `step` and `beam`.
        beam: partial solutions that `beam` keeps.
        temperature: sampling temperature; `greedy` has none.
        top_p: nucleus of what is sampled.
        max_tokens: a whole solution is cut off at so many tokens.
        max_step_tokens: a step is cut off at so many tokens.
        max_steps: steps of a solution.
        seed: seed of the sampling; every problem derives its own.
    """

    width: Count = 6
    beam: Count = 2
    temperature: Temperature = 0.5
    top_p: Nucleus = 0.95
    max_tokens: Count = 1024
    max_step_tokens: Count = 256
    max_steps: Count = 20
    seed: Seed = 0


@dataclass(frozen=True)
class Solution:
    """What a strategy settled on; `trace` is what it chose from, ready for JSON."""

    text: str
    finished: bool
    trace: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Means:
    """What a strategy works with."""

    engine: Engine
    encoder: Encoder
    judge: JudgeSettings
    settings: StrategySettings
    prm: Judge | None = None

    async def judgements(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]:
        """By the policy itself, or by the process reward model: of several steps at once it rates the last."""
        judge = build_judge(self.judge, self.engine, self.encoder, None, self.prm)
        return await judge(problem, steps, candidates)

    async def solutions(self, problem: Problem, n: int, temperature: Temperature) -> list[Completion]:
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
    """The most likely token, again and again."""
    [one] = await means.solutions(problem, 1, 0.0)
    return Solution(one.text, one.finish_reason == "eos")


async def majority(problem: Problem, means: Means) -> Solution:
    """The first of the sampled solutions whose boxed answer most of them give."""
    sampled = await means.solutions(problem, means.settings.width, means.settings.temperature)
    answers = [(extract_boxed(one.text) or "").replace(" ", "") for one in sampled]
    votes = Counter(answer for answer in answers if answer)
    chosen = answers.index(votes.most_common(1)[0][0]) if votes else 0
    finished = [one.finish_reason == "eos" for one in sampled]
    trace = {"solutions": [one.text for one in sampled], "finished": finished, "votes": dict(votes), "chosen": chosen}
    return Solution(sampled[chosen].text, finished[chosen], trace)


async def best_of_n(problem: Problem, means: Means) -> Solution:
    """The winner of a judged tournament of the sampled solutions that are finished."""
    sampled = await means.solutions(problem, means.settings.width, means.settings.temperature)
    finished = tuple(
        Candidate(one.token_ids, one.text, one.logprob, final=True) for one in sampled if one.finish_reason == "eos"
    )
    trace: dict[str, Any] = {"solutions": [one.text for one in finished]}
    if not finished:
        return Solution(sampled[0].text, False, trace)
    try:
        node = expand(0, finished, await means.judgements(problem, [], finished), means.search_settings())
    except PromptTooLong:  # two whole solutions do not fit into a judge prompt: the first is as good as any
        return Solution(finished[0].text, True, trace)
    trace |= {"judgements": list(map(asdict, node.judgements)), "scores": node.scores, "chosen": node.chosen}
    return Solution(finished[node.chosen].text, True, trace)


async def step(problem: Problem, means: Means) -> Solution:
    """Judged step search: the best candidate of every step is kept (the paper's test-time scaling)."""
    trajectory = await step_search(problem, means.engine, means.judgements, means.encoder, means.search_settings())
    return Solution(trajectory.solution, trajectory.finished, {"trajectory": to_json(trajectory)})


async def beam(problem: Problem, means: Means) -> Solution:
    """Step search with several partial solutions.

    Each is continued by `width` candidates, of which the `beam` with the most wins stay; of all that stay, partial
    solutions as a whole are judged against each other, and the `beam` with the most wins go on. Finished ones stay
    in the contest. The first of the last beam is the solution.
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
                if steps and steps[-1].final:
                    pool.append(steps)
                    continue
                node = await _continue(problem, means, prompt, steps, number * settings.beam + place)
                nodes.append(node)
                pool += [[*steps, one] for one in _ahead(node.candidates, node.scores, settings.beam)]
            wholes = tuple(_whole(steps) for steps in pool)
            judgements = await means.judgements(problem, [], wholes) if len(pool) > settings.beam else []
        except PromptTooLong:
            if number == 0:
                raise
            break
        if not pool:
            break
        wins = scores(wholes, judgements)
        kept = [pool[wholes.index(one)] for one in _ahead(wholes, wins, settings.beam)]
        rounds.append({"nodes": list(map(asdict, nodes)), "judgements": list(map(asdict, judgements)), "scores": wins})
        if all(steps[-1].final for steps in kept):
            break
    chosen = next((steps for steps in kept if steps and steps[-1].final), kept[0])
    text = "".join(one.text for one in chosen)
    return Solution(text, bool(chosen) and chosen[-1].final, {"rounds": rounds})


def _ahead(candidates: Sequence[Candidate], wins: Sequence[int], count: int) -> list[Candidate]:
    """The `count` distinct ones with the most wins, the first ones where wins are equal."""
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
