"""The processes of a fit when they do not train: who searches what, and waiting for each other for as long as it takes.

While one rank still searches or evaluates, the others wait in a process group of their own on the host. Its time-out is
long, so that of the training's collective operations can stay short; a rank that dies ends the wait at once, as its
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
"""Who searches: every rank, the first of every node, or the first of all."""

PATIENCE = timedelta(days=7)


class RankError(PSRError, RuntimeError):
    """Another rank failed; the message is the one that it ended with."""


@dataclass(frozen=True)
class Ranks:
    """This process among all of the fit; alone if there is only one.

    `searchers` are the ranks that search, in order. `group` is what they wait in.
    """

    rank: int = 0
    size: int = 1
    searchers: tuple[int, ...] = (0,)
    group: Any = None

    @classmethod
    def of(cls, trainer: Trainer | None, searchers: Searchers) -> "Ranks":
        """Every rank has to call this."""
        if trainer is None or trainer.world_size == 1:
            return cls()
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
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
        """What of `items` this rank searches: together the searchers have all of them, and none twice."""
        if not self.searches:
            return []
        return list(items[self.searchers.index(self.rank) :: len(self.searchers)])

    def exchange(self, value: Item) -> list[Item]:
        """The values of all ranks, in their order. Waits until every rank has called this."""
        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def wait(self) -> None:
        """Until all ranks are here."""
        self.exchange(None)

    def settle(self, error: BaseException | None) -> None:
        """Wait for all ranks; raise where any has failed, so that they end together.

        Raises:
            BaseException: the own `error`.
            SIGTERMException: another rank was told to stop.
            RankError: another rank failed.
        """
        said = None if error is None else f"{type(error).__name__}: {error}"
        stopped = isinstance(error, SIGTERMException)
        told = self.exchange((said, stopped, socket.gethostname()))
        if error is not None:
            raise error
        if any(stopped for _, stopped, _ in told):
            raise SIGTERMException
        for rank, (said, _, host) in enumerate(told):
            if said is not None:
                raise RankError(f"rank {rank} on {host} failed: {said}")
