"""A second look at finished searches: other candidates, or another judge, at the steps that they kept.

A pass makes of a trajectory another one with the same chosen steps, so that whatever reads trajectories reads it.
Knows engines, judges and trajectories. Does not know whose weights the engine serves.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from psr.engines.base import Engine, PromptTooLong
from psr.prompts.encoder import Encoder
from psr.records import Candidate, StepNode, Trajectory
from psr.search.judges import Judge, scores
from psr.search.rounds import distinct
from psr.search.step_search import SearchSettings, sample_steps


def prefixes_of_kept(trajectory: Trajectory) -> Iterator[tuple[list[Candidate], StepNode]]:
    """Every kept node with the chosen steps before it."""
    steps: list[Candidate] = []
    for node in trajectory.kept:
        yield list(steps), node
        steps.append(node.candidates[node.chosen])


async def rivals(
    trajectory: Trajectory, engine: Engine, encoder: Encoder, settings: SearchSettings
) -> list[tuple[Candidate, ...]]:
    """What `engine` writes in the place of every chosen step: `settings.width` candidates each, of one kept node each.

    None where the prefix leaves no room in its context.
    """
    found = []
    for steps, node in prefixes_of_kept(trajectory):
        prefix = trajectory.prompt_ids + tuple(token for step in steps for token in step.token_ids)
        try:
            drawn, _ = await sample_steps(trajectory.problem, prefix, node.depth, engine, encoder, settings)
        except PromptTooLong:
            drawn = ()
        found.append(drawn)
    return found


async def against(trajectory: Trajectory, others: Sequence[tuple[Candidate, ...]], judge: Judge) -> Trajectory:
    """The trajectory with the chosen step of every kept node judged beside `others`, the worst of which is rejected."""
    nodes = []
    for (steps, node), rest in zip(prefixes_of_kept(trajectory), others, strict=True):
        candidates = (node.candidates[node.chosen], *rest)
        judged = await judged_again(trajectory, steps, replace(node, candidates=candidates, chosen=0), judge)
        wins = judged.scores
        nodes.append(replace(judged, rejected=wins.index(min(wins[1:]), 1) if rest else 0))
    return replace(trajectory, nodes=tuple(nodes))


async def rejudged(trajectory: Trajectory, judge: Judge) -> Trajectory:
    """The kept nodes with the verdicts and scores of `judge`; chosen and rejected stay."""
    kept = [await judged_again(trajectory, steps, node, judge) for steps, node in prefixes_of_kept(trajectory)]
    return replace(trajectory, nodes=tuple(kept))


async def judged_again(trajectory: Trajectory, steps: Sequence[Candidate], node: StepNode, judge: Judge) -> StepNode:
    """The node with the verdicts of `judge`, none where there is nothing to tell apart or no room for it."""
    judgements = []
    if len(distinct(node.candidates)) > 1:
        with contextlib.suppress(PromptTooLong):
            judgements = await judge(trajectory.problem, [step.text for step in steps], node.candidates)
    return replace(node, judgements=tuple(judgements), scores=scores(node.candidates, judgements))
