"""Step search (equations 1-5): sample candidates, judge them, extend the solution by the best, roll back on a tie.

One plain coroutine per problem; the engine batches across problems. Deterministic given the seed and the engine's
replies. Does not know which engine answers, who judges, or any answer.
"""

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from psr.engines.base import Engine, EngineError, Origin, PromptTooLong, Sampling
from psr.prompts.encoder import Encoder
from psr.records import Candidate, Judgement, Problem, StepNode, Trajectory
from psr.search.judges import Judge, scores


@dataclass(frozen=True)
class SearchSettings:
    """How a problem is searched; the defaults are the paper's.

    Args:
        width: candidates per step (w).
        temperature: sampling temperature of candidates.
        top_p: nucleus of candidates.
        max_iterations: expansions per problem, roll-backs included.
        max_step_tokens: a candidate that does not end its step (or response) within this many tokens is discarded.
        ties: what to do when all scores are equal: "rollback" (the paper's, for making pairs) discards the previous
            step, "advance" goes on with the first candidate (for solving).
        granularity: what a candidate is: the next "step", or a whole "response" from the problem to its end (SRLM).
        seed: seed of the whole search; every problem and iteration derives its own.
    """

    width: int = 6
    temperature: float = 0.5
    top_p: float = 0.95
    max_iterations: int = 20
    max_step_tokens: int = 256
    ties: Literal["rollback", "advance"] = "rollback"
    seed: int = 0
    granularity: Literal["step", "response"] = "step"

    def __post_init__(self) -> None:
        for name in ("width", "max_iterations", "max_step_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"search.{name} is {getattr(self, name)}: it must be at least 1")


async def step_search(
    problem: Problem, engine: Engine, judge: Judge, encoder: Encoder, settings: SearchSettings
) -> Trajectory:
    """Search one problem.

    Raises:
        PromptTooLong: the problem itself does not fit into the context. Where only the solution, or a judge prompt with
            two candidates, grows too long, the search ends unfinished and keeps its pairs.
        EngineError: completions came from different weights.
    """
    started = time.monotonic()
    prompt = encoder.reason(problem.problem)
    nodes: list[StepNode] = []
    versions: set[str] = set()
    solution: list[int] = []  # indices into nodes of the kept ones
    for iteration in range(settings.max_iterations):  # roll-backs count too, so that ties cannot go on for ever
        steps = [nodes[i].candidates[nodes[i].chosen] for i in solution]
        prefix = prompt + tuple(token for step in steps for token in step.token_ids)
        try:
            candidates, made_by = await sample_steps(problem, prefix, iteration, engine, encoder, settings)
        except PromptTooLong:
            if not steps:
                raise
            break
        versions |= made_by
        try:
            judgements = await judge(problem, [step.text for step in steps], candidates)
        except PromptTooLong:
            break
        node = expand(len(solution), candidates, judgements, settings)
        nodes.append(node)  # tied and rolled-back nodes stay in the trace; only kept ones give pairs
        if node.event == "kept":
            solution.append(len(nodes) - 1)
            if node.candidates[node.chosen].final:
                break
        elif solution:  # at the root there is no step to take back: sample again with the next seed
            dropped = solution.pop()
            nodes[dropped] = replace(nodes[dropped], event="rolled_back")
    if len(versions) > 1:
        raise EngineError(f"problem {problem.id} was answered by different weights: {', '.join(sorted(versions))}")
    # Not finished: iterations ran out, or no room was left. Its pairs are as good as those of a finished solution.
    last = nodes[solution[-1]] if solution else None
    finished = last is not None and last.candidates[last.chosen].final
    return Trajectory(problem, prompt, tuple(nodes), finished, "".join(versions), time.monotonic() - started)


async def sample_steps(
    problem: Problem, prefix: Sequence[int], number: int, engine: Engine, encoder: Encoder, settings: SearchSettings
) -> tuple[tuple[Candidate, ...], set[str]]:
    """Candidates for the step after `prefix`, and the weights versions that generated them.

    `number` distinguishes the expansions of a problem: each has its own seed. Raises PromptTooLong.
    """
    sampling = _sampling(problem, number, encoder, settings)
    [completions] = await engine.generate([prefix], sampling, Origin(problem.id, "candidates"))
    cut = (encoder.step(c.token_ids, c.logprob, c.finish_reason) for c in completions)  # None: no complete step
    return tuple(one for one in cut if one is not None), {c.weights_version for c in completions}


def expand(
    depth: int, candidates: tuple[Candidate, ...], judgements: Sequence[Judgement], settings: SearchSettings
) -> StepNode:
    """Score the candidates; the first with the most wins is chosen, the first with the fewest is rejected."""
    wins = scores(candidates, judgements)  # empty if no candidate is a complete step
    tied = not wins or max(wins) == min(wins)
    kept = bool(wins) and not (tied and settings.ties == "rollback")
    chosen = wins.index(max(wins)) if wins else 0
    rejected = wins.index(min(wins)) if wins else 0
    return StepNode(depth, candidates, tuple(judgements), wins, chosen, rejected, "kept" if kept else "tied")


def _sampling(problem: Problem, iteration: int, encoder: Encoder, settings: SearchSettings) -> Sampling:
    return Sampling(
        max_new_tokens=settings.max_step_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        n=settings.width,
        # crc32, since Python salts its hash() of strings differently in every process.
        seed=zlib.crc32(f"{settings.seed}/{problem.id}/{iteration}".encode()),
        stop=(encoder.prompts.step_stop,) if settings.granularity == "step" else (),
    )
