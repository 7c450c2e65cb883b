"""All searching ranks work on an iteration's problems together, and a kill loses none that is finished.

Knows ranks, journals and what an engine has counted. Does not know what is done for a problem.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch.utilities.exceptions import SIGTERMException

from psr.data.traces import TraceJournal, merge_parts, part_of
from psr.engines.usage import Usage, add_usage, used_between
from psr.errors import PSRError
from psr.processes.stopping import stop_asked
from psr.records import Problem, Trajectory
from psr.run.folder import add_search

if TYPE_CHECKING:
    from psr.data.self_rewarding import SelfRewardingDataModule

Keep = Callable[[Trajectory], None]
"""Appends to the journal; raises SIGTERMException where the process has been told to stop."""
Work = Callable[[list[Problem], Keep], Awaitable[None]]
"""Makes a trajectory of each of these problems, and keeps every one as soon as it is finished."""


async def trajectories(
    data: "SelfRewardingDataModule", path: Path, number: int, problems: Sequence[Problem], work: Work, serves: int
) -> TraceJournal:
    """The journal `path` with a trajectory of every problem; what is missing there is made now.

    The searchers share the `work`, each with an engine that serves M`serves`. All lines of the journal are searches by
    M(`number` - 1), and what they cost is added to what M`number` has cost.
    """
    version, missing = f"M{number - 1}", list[Problem]()
    journal: TraceJournal | None = None
    # Rank 0 alone decides: another rank could read the journal while its lines are being merged.
    if data.ranks.first:
        journal = TraceJournal(path, version)
        merge_parts(journal)
        missing = [problem for problem in problems if problem.id not in journal.trajectories]
    missing = data.ranks.exchange(missing)[0]
    if missing:
        await _work_together(data, missing, journal, path, number, work, serves)
    return journal or TraceJournal(path, version, checked=True)


async def _work_together(
    data: "SelfRewardingDataModule",
    missing: list[Problem],
    merged: TraceJournal | None,
    path: Path,
    number: int,
    work: Work,
    serves: int,
) -> None:
    """Do this rank's share of `missing` and wait for the other ranks; then the journal has all trajectories.

    The first rank appends to the journal itself, which it has open as `merged`.

    Where a rank fails or is preempted, all ranks raise an error, and finished searches are kept.
    """
    version = f"M{number - 1}"
    error: BaseException | None = None
    started, before = time.monotonic(), data.usage  # the engine counts since it was made

    def keep(trajectory: Trajectory) -> None:
        journal.append(trajectory)
        # Lightning looks at its SIGTERM flag between batches only, and a search can take hours.
        told = data.trainer is not None and data.trainer.received_sigterm
        if told or stop_asked():
            raise SIGTERMException

    try:
        if mine := data.ranks.share(missing):
            await data.serve(serves)
            started = time.monotonic()  # loading weights is no search
            journal = merged or TraceJournal(part_of(path, data.ranks.rank), version)
            await work(mine, keep)
    except BaseException as caught:  # raised below: first the others must learn of it, or they would wait for us
        error = caught
    used = used_between(before, data.usage), time.monotonic() - started
    usages = data.ranks.exchange(used)  # also the barrier after which every rank's file is complete
    if merged is not None:
        try:
            merge_parts(merged)
            _note_cost(data, number, usages)
        except PSRError as caught:  # the same: and where the search has failed, that is what is to be told
            error = error or caught
    data.ranks.settle(error)


def _note_cost(data: "SelfRewardingDataModule", number: int, usages: Sequence[tuple[dict[str, Usage], float]]) -> None:
    """Add what the work has cost all ranks."""
    # Tokens add up over ranks; they search at the same time, so the slowest gives the seconds.
    total: dict[str, Usage] = {}
    for usage, _ in usages:
        total = add_usage(total, usage)
    add_search(data.run.iteration(number), total, max(usages[rank][1] for rank in data.ranks.searchers))
