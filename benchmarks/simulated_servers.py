"""SGLang servers that are simulated, on a clock of their own, for psr's own SGLang engine to ask.

A server batches as SGLang does: requests that wait are prefilled first, then every sequence that runs gets one token a
step. How long a step takes at how many sequences, and a prefill at how many tokens, was measured on a real server, and
so were the replies. All of the client's work is really done, but takes no time on the clock; neither does the network.
"""

import asyncio
import selectors
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from psr.engines.sglang import SGLangEngine
from psr.engines.sglang.fleet import Fleet
from psr.engines.sglang.protocol import Ask
from psr.engines.sglang.replicas import Abilities, Replica, Server
from psr.engines.sglang.transport import Session


@dataclass(frozen=True)
class Speed:
    """Seconds of a server.

    Args:
        steps: (sequences that run, seconds of a decoding step), with growing numbers of sequences.
        prefill: seconds of a prefill, without a token.
        prefill_token: and for every token of it.
    """

    steps: list[tuple[int, float]]
    prefill: float
    prefill_token: float

    def step(self, running: int) -> float:
        """In between the measurements on a line. Nothing is known beyond the last."""
        for (low, fast), (high, slow) in pairwise(self.steps):
            if running <= high:
                return fast + (slow - fast) * (running - low) / (high - low)
        raise ValueError(f"{running} sequences run, and at most {self.steps[-1][0]} were measured")


@dataclass
class Call:
    """One request for several sequences, answered when all are whole."""

    uncached: int
    left: list[int]
    done: asyncio.Future[None]


@dataclass
class SimulatedServer:
    speed: Speed
    waiting: deque[Call] = field(default_factory=deque)
    running: list[Call] = field(default_factory=list)
    busy: float = 0.0
    decoded: int = 0
    worker: asyncio.Task[None] | None = None

    async def answer(self, uncached: int, lengths: list[int]) -> None:
        """Takes as long as so many prompt tokens that are not cached, and sequences of such lengths, do now."""
        loop = asyncio.get_running_loop()
        call = Call(uncached, [max(1, length) for length in lengths], loop.create_future())
        self.waiting.append(call)
        if self.worker is None or self.worker.done():
            self.worker = loop.create_task(self.work())
        await call.done

    async def work(self) -> None:
        while self.waiting or self.running:
            if self.waiting:  # the prefill gives each its first token
                batch, seconds = list(self.waiting), self.speed.prefill
                self.waiting.clear()
                seconds += self.speed.prefill_token * sum(call.uncached for call in batch)
                self.running += batch
            else:
                batch, seconds = list(self.running), self.speed.step(sum(len(call.left) for call in self.running))
            await asyncio.sleep(seconds)
            self.busy += seconds
            for call in batch:
                self.decoded += len(call.left)
                call.left = [left - 1 for left in call.left if left > 1]
                if not call.left:
                    call.done.set_result(None)
            self.running = [call for call in self.running if call.left]


def is_prefill(replies: list[dict[str, Any]]) -> bool:
    return all(reply["meta_info"]["completion_tokens"] == 0 for reply in replies)


def prefilled(tokens: int) -> dict[str, Any]:
    """A reply to a prefix that was in no cache."""
    return {"output_ids": [], "meta_info": {"prompt_tokens": tokens, "cached_tokens": 0, "completion_tokens": 0}}


class SimulatedFleet(Fleet):
    """Answers what a real server has answered to the same problem; `problem#n` is the n-th copy of a problem.

    What was cached stays so only on the server that answered the problem before.
    """

    def __init__(self, servers: int, speed: Speed, replies: dict[str, list[list[dict[str, Any]]]]) -> None:
        urls = [f"http://server-{n}" for n in range(servers)]
        super().__init__([Server(url) for url in urls], None, 1, concurrency=speed.steps[-1][0], retries=0, timeout=1.0)
        self.simulated = {url: SimulatedServer(speed) for url in urls}
        self.replies, self.asked = replies, defaultdict[str, int](int)
        self.last: dict[str, Replica] = {}

    async def load(self, folder: Path, label: str) -> None:
        self.folder, self.label = folder, label

    async def abilities(self) -> Abilities:
        return Abilities(longest_prompt=2**31, seeded=True, lends=False)

    async def generate(
        self, session: Session, replica: Replica, asks: Sequence[Ask], choices: Sequence[int], key: str
    ) -> list[dict[str, Any]]:
        replies = self.noted(asks, key)
        metas = [reply["meta_info"] for reply in replies]
        uncached = sum(meta["prompt_tokens"] - meta["cached_tokens"] for meta in metas)
        if self.last.setdefault(key, replica) is not replica:  # nothing of the problem is here yet
            uncached += max(meta["cached_tokens"] for meta in metas)
            self.last[key] = replica
        await self.simulated[replica.url].answer(uncached, [meta["completion_tokens"] for meta in metas])
        return replies

    def noted(self, asks: Sequence[Ask], key: str) -> list[dict[str, Any]]:
        """The real server's replies, in their order.

        Prefixes that are sent ahead because the problem has moved to another server have none: all of them has to be
        computed. Others need not be sent any more.
        """
        calls, lengths = self.replies[key.partition("#")[0]], [len(ask.prompt) for ask in asks]
        ahead = asks[0].parameters["max_new_tokens"] == 0
        while not ahead and is_prefill(calls[self.asked[key]]):
            self.asked[key] += 1
        found = calls[self.asked[key]]
        if ahead and (not is_prefill(found) or [reply["meta_info"]["prompt_tokens"] for reply in found] != lengths):
            return [prefilled(length) for length in lengths]
        self.asked[key] += 1
        return found


class SimulatedEngine(SGLangEngine):
    """psr's SGLang engine, as it is, in front of simulated servers."""

    def __init__(self, fleet: SimulatedFleet, share_from: int) -> None:
        super().__init__(urls=[server.url for server in fleet.servers], share_from=share_from)
        self._fleet = fleet


class OwnClock(asyncio.SelectorEventLoop):
    """An event loop whose time goes on only while it would wait, and then at once."""

    def __init__(self) -> None:
        self.now = 0.0

        class Skipping(selectors.SelectSelector):
            def select(selector, timeout: float | None = None) -> Any:
                self.now += timeout or 0.0
                return super().select(0)

        super().__init__(Skipping())

    def time(self) -> float:
        return self.now
