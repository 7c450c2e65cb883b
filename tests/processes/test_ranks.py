"""Ranks share problems, wait for each other longer than a collective operation may take, and end together."""

import os
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch.utilities.exceptions import SIGTERMException

from psr.processes.ranks import RankError, Ranks

SHORT, LONG = 2.0, 6.0
"""Seconds that a collective operation of the training may take, and that a search takes."""


@pytest.mark.parametrize("searchers", [(0,), (0, 2), (0, 1, 2, 3)])
@pytest.mark.parametrize("problems", [0, 1, 7])
def test_the_shares_are_all_problems_and_none_twice(searchers: tuple[int, ...], problems: int):
    shares = [Ranks(rank, 4, searchers).share(range(problems)) for rank in range(4)]
    assert sorted(one for share in shares for one in share) == list(range(problems))
    assert all(not share for rank, share in enumerate(shares) if rank not in searchers)
    sizes = [len(shares[rank]) for rank in searchers]
    assert max(sizes) - min(sizes) <= 1


def test_one_rank_alone_waits_for_nobody():
    alone = Ranks.of(None, "node")
    assert alone.exchange("x") == ["x"] and alone.searches and alone.first
    alone.settle(None)
    with pytest.raises(KeyError):
        alone.settle(KeyError("mine"))


def rank(number: int, store: str, seen: Any) -> None:
    dist.init_process_group("gloo", f"file://{store}", timedelta(seconds=SHORT), world_size=2, rank=number)
    trainer: Any = SimpleNamespace(world_size=2, global_rank=number, local_rank=number)
    ranks = Ranks.of(trainer, "node")
    found: dict[str, Any] = {"searchers": ranks.searchers, "share": ranks.share("abc")}
    if number == 0:
        time.sleep(LONG)
    started = time.monotonic()
    found["exchanged"], found["waited"] = ranks.exchange(f"of {number}"), time.monotonic() - started
    for error in (EngineFailed("no server"), SIGTERMException()):
        try:
            ranks.settle(error if number == 0 else None)
        except BaseException as caught:
            found[type(error).__name__] = (type(caught).__name__, str(caught))
    ranks.settle(None)
    seen[number] = found
    if number == 0:
        os._exit(1)  # dies, while the other one waits for it
    try:
        ranks.wait()
    except RuntimeError as error:
        seen[number] = {**found, "left alone": str(error)}


class EngineFailed(RuntimeError):
    pass


@pytest.mark.slow
def test_a_rank_waits_longer_than_the_time_out_and_hears_how_the_other_ended(tmp_path: Path):
    with mp.Manager() as manager:
        seen = manager.dict()
        context = mp.get_context("spawn")
        processes = [context.Process(target=rank, args=(number, str(tmp_path / "store"), seen)) for number in (0, 1)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        searcher, waiting = seen[0], seen[1]
    assert searcher["searchers"] == waiting["searchers"] == (0,)
    assert (searcher["share"], waiting["share"]) == (["a", "b", "c"], [])
    assert searcher["exchanged"] == waiting["exchanged"] == ["of 0", "of 1"]
    assert waiting["waited"] > SHORT + 1 > searcher["waited"]
    assert searcher["EngineFailed"] == ("EngineFailed", "no server")
    kind, said = waiting["EngineFailed"]
    assert kind == RankError.__name__ and said.startswith("rank 0 on ") and "EngineFailed: no server" in said
    assert searcher["SIGTERMException"][0] == waiting["SIGTERMException"][0] == "SIGTERMException"
    assert waiting["left alone"], "a rank that dies ends the wait"
