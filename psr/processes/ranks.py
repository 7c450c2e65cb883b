"""The ranks of a fit while they do not train: who searches what, and how they wait for each other.

While one rank still searches or evaluates, the others wait in a separate gloo process group. Its time-out is long, so
that the time-out of the collectives in training can stay short; a rank that dies ends the wait at once, as its
connections close.

Knows torch.distributed and the Trainer. Does not know what is exchanged.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch.distributed as dist
from lightning import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from psr.errors import PSRError

Item = TypeVar("Item")
Searchers = Literal["rank", "node", "first"]
"""Who searches: every rank, local rank 0 of every node, or rank 0 alone."""

PATIENCE = timedelta(days=7)


class RankError(PSRError, RuntimeError):
    """Another rank failed; the message is the one that it ended with."""


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks of a fit; by default the only one.

    `searchers` are the ranks that search, ascending. `group` is the process group in which all ranks wait.
    """

    rank: int = 0
    size: int = 1
    searchers: tuple[int, ...] = (0,)
    group: Any = None

    @classmethod
    def of(cls, trainer: Trainer | None, searchers: Searchers) -> "Ranks":
        """The ranks of the Trainer. A collective: every rank has to call this."""
        if trainer is None or trainer.world_size == 1:
            return cls()
        # gloo, not NCCL: waiting for hours in an NCCL collective keeps a GPU busy, which an engine may be using.
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
        # Each rank knows only its own local rank, so the list of searchers has to be gathered.
        alone = cls(trainer.global_rank, trainer.world_size, group=group)
        searches = {"rank": True, "node": trainer.local_rank == 0, "first": trainer.global_rank == 0}[searchers]
        found = [rank for rank, does in enumerate(alone.exchange(searches)) if does]
        return cls(alone.rank, alone.size, tuple(found), group)

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def searches(self) -> bool:
        return self.rank in self.searchers

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This rank's share of `items`: together the searchers have all of them, and none twice."""
        if not self.searches:
            return []
        return list(items[self.searchers.index(self.rank) :: len(self.searchers)])

    def exchange(self, value: Item) -> list[Item]:
        """All-gather of a value from every rank, in the order of ranks; waits until every rank has called this."""
        if self.group is None:  # a single process has no process group
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def wait(self) -> None:
        """Barrier: returns once all ranks have called this."""
        self.exchange(None)

    def settle(self, error: BaseException | None) -> None:
        """Wait for all ranks, and raise if any of them failed, so that they end together.

        Raises:
            BaseException: this rank's own `error`.
            SIGTERMException: another rank was preempted.
            RankError: another rank failed.
        """
        # As text: an exception may not unpickle in another process.
        said = None if error is None else f"{type(error).__name__}: {error}"
        stopped = isinstance(error, SIGTERMException)
        told = self.exchange((said, stopped, socket.gethostname()))
        if error is not None:
            raise error
        # Before failures: ranks whose peers were preempted may have failed just because of that.
        if any(stopped for _, stopped, _ in told):
            raise SIGTERMException
        for rank, (said, _, host) in enumerate(told):
            if said is not None:
                raise RankError(f"rank {rank} on {host} failed: {said}")
