"""SGLang servers and their data-parallel ranks, and which of them a problem's requests go to.

A problem that is searched asks again and again with a growing prefix. The keys and values of that prefix lie in the
radix cache of the server that answered before, so all requests of one key go to one replica, as long as that has not
much more to do than another: searches differ in length, and the last ones should not wait for each other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from psr.engines.base import EngineError
from psr.engines.sglang.server import OwnedServer
from psr.engines.sglang.transport import Session, Transient, request

QUICK = 20.0
"""Seconds for a question that a server answers at once if it can answer at all."""
DRAIN_LIMIT = 120.0
"""Seconds that requests which nobody waits for any more may take to end."""
SLACK = 16
"""Sequences by which loads may differ without a reason to move a problem: a step of its search has about as many."""


@dataclass(eq=False)
class Server:
    """One SGLang server: where it is and how its weights are changed.

    Args:
        url: its address.
        owned: the process, where psr started it.
        asleep: its memory is lent to somebody else.
        empty: what it had in memory is lost, and nothing was loaded since.
    """

    url: str
    owned: OwnedServer | None = None
    asleep: bool = False
    empty: bool = False

    async def healthy(self, session: Session) -> bool:
        """Whether the server answers and can decode."""
        try:
            await request(session.http, "GET", f"{self.url}/health", timeout=QUICK)
        except Transient:
            return False
        return True

    async def version(self, session: Session) -> str:
        info = await request(session.http, "GET", f"{self.url}/model_info", timeout=QUICK)
        return str(info["weight_version"])

    async def start(self, session: Session, folder: Path, label: str) -> None:
        """Start our own server, with `folder` as weights `label`."""
        assert self.owned is not None
        self.asleep = self.empty = False
        await self.owned.start(folder, label, lambda: self.healthy(session))

    async def load(self, session: Session, folder: Path, label: str) -> None:
        """Serve `folder` as weights `label`, with an empty cache, once all running requests are done.

        Another process that shares the server may have loaded them already, and be asking: then there is nothing to do.
        """
        if self.asleep:
            await request(session.http, "POST", f"{self.url}/resume_memory_occupation", {})
            self.asleep = False
        if await self._has(session, label):
            return
        await self.drain(session)
        if await self._has(session, label):  # since, and what is drained now are its requests
            return
        body = {"model_path": str(folder), "weight_version": label, "flush_cache": True}
        reply = await request(session.http, "POST", f"{self.url}/update_weights_from_disk", body)
        if not reply["success"]:
            raise EngineError(f"SGLang at {self.url} did not load {folder}: {reply['message']}")
        served = await self.version(session)
        if served != label:
            raise EngineError(f"SGLang at {self.url} took the weights {label!r} and says that it serves {served!r}")
        self.empty = False

    async def _has(self, session: Session, label: str) -> bool:
        return not self.empty and await self.version(session) == label

    async def drain(self, session: Session) -> None:
        """Wait until no request is running, then empty the cache: with requests pending SGLang would refuse to."""
        url = f"{self.url}/flush_cache?timeout={DRAIN_LIMIT:.0f}"
        await request(session.http, "POST", url, timeout=DRAIN_LIMIT + QUICK)

    async def sleep(self, session: Session) -> None:
        """Give back the memory of weights and cache; what was in it is lost."""
        await self.drain(session)
        await request(session.http, "POST", f"{self.url}/release_memory_occupation", {})
        self.asleep = self.empty = True

    async def abilities(self, session: Session) -> "Abilities":
        info = await request(session.http, "GET", f"{self.url}/server_info", timeout=QUICK)
        return Abilities(
            longest_prompt=int(info["max_req_input_len"]) - 1,  # its own limit is the first that it refuses
            seeded=bool(info["enable_deterministic_inference"]),
            # without a memory saver it answers that it has released its memory, and keeps all of it
            lends=bool(info["enable_memory_saver"]) or info["device"] == "cpu",
        )


@dataclass(frozen=True)
class Abilities:
    """What a server can do by its settings: tokens of the longest prompt, whether it honours seeds, and whether its
    memory can be lent to somebody else.
    """

    longest_prompt: int
    seeded: bool
    lends: bool


@dataclass(eq=False)
class Replica:
    """What a key sticks to: a server, one data-parallel rank of it, or a router with its servers behind it.

    `load` is the number of sequences that were asked of it and are not answered yet.
    """

    url: str
    servers: list[Server]
    rank: int | None = None
    load: int = 0

    @contextmanager
    def asked(self, size: int) -> Iterator[None]:
        """Count so many sequences as its load meanwhile."""
        self.load += size
        try:
            yield
        finally:
            self.load -= size


def replicas_of(servers: list[Server], router: str | None, ranks: int) -> list[Replica]:
    """One for the router, or one for each rank of each server."""
    if router is not None:
        return [Replica(router.rstrip("/"), servers)]
    numbers = list(range(ranks)) if ranks > 1 else [None]
    return [Replica(server.url, [server], rank) for server in servers for rank in numbers]


@dataclass
class Placement:
    """Keeps every key with the replica that had the least to do when the key first asked.

    A key moves on to the idlest when its own has more than twice as much to do: its prefix is computed again there.
    """

    replicas: list[Replica]
    homes: dict[str, Replica] = field(default_factory=dict)

    @property
    def idlest(self) -> Replica:
        return min(self.replicas, key=lambda replica: replica.load)

    def home(self, key: str) -> tuple[Replica, bool]:
        """The key's replica, and whether nothing of the key is there yet."""
        home, idlest = self.homes.get(key), self.idlest
        if home is not None and home.load <= 2 * idlest.load + SLACK:
            return home, False
        self.homes[key] = idlest
        return idlest, True

    def forget(self) -> None:
        """New weights: no cache holds anything any more."""
        self.homes.clear()
