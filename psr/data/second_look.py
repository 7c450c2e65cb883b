"""What `data.pairs` asks of an iteration's searches once more: other steps to reject, or the ranking of another judge.

Each is a walk over the searched problems with weights of its own, kept in a journal beside the traces, so that a kill
costs no problem twice. Knows the DataModule and passes; not how the problems were searched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from psr.data.together import Keep, trajectories
from psr.data.traces import TraceJournal
from psr.records import Problem, Trajectory
from psr.search.judges import build_judge
from psr.search.pairs import consistency
from psr.search.passes import against, rejudged, rivals
from psr.search.run import for_each, hand_over

if TYPE_CHECKING:
    from psr.data.self_rewarding import SelfRewardingDataModule


async def anchored(
    data: "SelfRewardingDataModule", number: int, searched: Mapping[str, Trajectory], problems: Sequence[Problem]
) -> TraceJournal:
    """The searches for M`number` with the worst step that M1 writes in the place of every rejected one."""

    async def work(mine: list[Problem], keep: Keep) -> None:
        drawn = await for_each(
            mine,
            lambda problem: rivals(searched[problem.id], data.engine, data.encoder, data.search),
            "M1 writes steps to reject",
            data.concurrency,
        )
        others = {problem.id: one for problem, one in zip(mine, drawn, strict=True)}
        if data.judge.engine is None:
            await data.serve(number - 1)
        async with data.judging(number - 1) as judge:
            await hand_over(
                mine,
                lambda problem: against(searched[problem.id], others[problem.id], judge),
                keep,
                f"M{number - 1} compares with them",
                data.concurrency,
            )

    path = data.run.iteration(number) / "anchored.jsonl"
    return await trajectories(data, path, number, problems, work, serves=1)


async def agreement(
    data: "SelfRewardingDataModule", number: int, searched: Mapping[str, Trajectory], problems: Sequence[Problem]
) -> float | None:
    """How far M(n - 1) ranks the candidates of the pairs of M(n) = M`number - 1` alike; None where M(n) is M1."""
    before, least = number - 2, max(data.min_margin, 1)
    if before < 1:
        return None

    async def work(mine: list[Problem], keep: Keep) -> None:
        judge = build_judge(replace(data.judge, model="current", engine=None), data.engine, data.encoder, None)
        await hand_over(
            mine,
            lambda problem: rejudged(searched[problem.id], judge),
            keep,
            f"M{before} judges the same",
            data.concurrency,
        )

    path = data.run.iteration(number) / "rejudged.jsonl"
    again = (await trajectories(data, path, number, problems, work, serves=before)).trajectories
    if not data.ranks.first:  # which reads both searches of every problem once more
        return data.ranks.exchange(None)[0]
    both = (nodes for p in problems for nodes in zip(searched[p.id].kept, again[p.id].kept, strict=True))
    found = consistency((one, other) for one, other in both if one.margin >= least)
    return data.ranks.exchange(found)[0]
