"""SGLang servers and their data-parallel ranks, and which of them a problem's requests go to.

The search of a problem sends request after request with a growing prefix. The keys and values of that prefix are in the
radix cache of the server that answered before, so all requests of a key go to one replica, unless its load is much
higher than that of another: searches differ in length, and the last ones should not queue behind each other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psr.engines.base import EngineError
from psr.engines.sglang.server import OwnedServer
from psr.engines.sglang.tensors import alone_with, buckets
from psr.engines.sglang.transport import Session, Transient, fields, request
from psr.terminal.text import brief

QUICK = 20.0
"""Time-out in seconds of requests that a server answers at once if it can answer at all."""
DRAIN_LIMIT = 120.0
"""Seconds that abandoned requests may take to end."""
SLACK = 16
"""Sequences by which loads may differ before a problem is moved: about as many as one step of a search asks for."""


@dataclass(eq=False)
class Server:
    """One SGLang server: its address and how its weights are changed.

    Args:
        url: its address.
        owned: its process, if psr started it.
        push: it is handed the tensors through the node's memory, not the folder to read.
        asleep: its memory is lent to the trainer.
        empty: its weights are lost, and none were loaded since, whatever version it reports.
    """

    url: str
    owned: OwnedServer | None = None
    push: bool = False
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
        return str(*fields(info, "weight_version"))

    async def start(self, session: Session, folder: Path, label: str) -> None:
        """Start our own server, with `folder` as weights `label`."""
        assert self.owned is not None
        self.asleep = self.empty = False
        await self.owned.start(folder, label, lambda: self.healthy(session))

    async def load(self, session: Session, folder: Path, label: str) -> None:
        """Serve `folder` as weights `label`, with an empty cache, once all running requests are done.

        Another process that shares the server may have loaded them already: then there is nothing to do.
        """
        if self.asleep:  # weights are read into memory that has to be there again
            await request(session.http, "POST", f"{self.url}/resume_memory_occupation", {})
            self.asleep = False
        if await self._has(session, label):
            return
        await self.drain(session)
        # Draining takes time, in which the other process may have loaded them: loading again would flush its cache.
        if await self._has(session, label):
            return
        if self.push:
            await self._push(session, folder, label)
        else:
            body = {"model_path": str(folder), "weight_version": label, "flush_cache": True}
            await self._update(session, "update_weights_from_disk", body)
        # An SGLang that does not know the field `weight_version` would ignore it without a word.
        served = await self.version(session)
        if served != label:
            raise EngineError(f"SGLang at {self.url} took the weights {label!r} and says that it serves {served!r}")
        self.empty = False

    async def _update(self, session: Session, action: str, body: dict[str, Any]) -> None:
        reply = await request(session.http, "POST", f"{self.url}/{action}", body)
        success, said = fields(reply, "success", "message")
        if not success:
            raise EngineError(f"SGLang at {self.url} did not take the weights ({action}): {said}")

    async def _push(self, session: Session, folder: Path, label: str) -> None:
        info = await request(session.http, "GET", f"{self.url}/server_info", timeout=QUICK)
        shards, ranks = fields(info, "tp_size", "dp_size")
        if ranks > 1:
            raise EngineError(
                f"engine.push is true, and SGLang at {self.url} has {ranks} data-parallel ranks, where it "
                "takes no tensors: set engine.push to false, or start a server for every rank"
            )
        async with alone_with(self.url):
            if await self._has(session, label):  # pushed by the process that was waited for
                return
            self.empty = True  # until all of it is there: neither the old weights nor the new ones
            await self._open_update(session)
            for bucket in buckets(folder):
                body = {"serialized_named_tensors": [bucket.payload] * shards, "flush_cache": bucket.last}
                named = {"weight_version": label} if bucket.last else {}
                await self._update(session, "update_weights_from_tensor", body | named)
            await self._update(session, "end_weight_update", {})

    async def _open_update(self, session: Session) -> None:
        try:
            await self._update(session, "begin_weight_update", {})
        except EngineError:  # what a process began that was ended in the middle is still open
            await self._update(session, "end_weight_update", {})
            await self._update(session, "begin_weight_update", {})

    async def _has(self, session: Session, label: str) -> bool:
        return not self.empty and await self.version(session) == label

    async def drain(self, session: Session) -> None:
        """Wait until no request is running, then flush the cache: SGLang refuses to while requests are pending."""
        url = f"{self.url}/flush_cache?timeout={DRAIN_LIMIT:.0f}"
        await request(session.http, "POST", url, timeout=DRAIN_LIMIT + QUICK)

    async def sleep(self, session: Session) -> None:
        """Release the memory of weights and KV cache; their contents are lost."""
        await self.drain(session)
        await request(session.http, "POST", f"{self.url}/release_memory_occupation", {})
        self.asleep = self.empty = True

    async def abilities(self, session: Session) -> "Abilities":
        info = await request(session.http, "GET", f"{self.url}/server_info", timeout=QUICK)
        longest, seeded, saves, device = fields(
            info, "max_req_input_len", "enable_deterministic_inference", "enable_memory_saver", "device"
        )
        if not isinstance(longest, int):
            raise Transient(f"a max_req_input_len that is no number: {brief(longest)}")
        return Abilities(
            longest_prompt=longest - 1,  # its own limit is the first that it refuses
            seeded=bool(seeded),
            # without a memory saver it answers that it has released its memory, and keeps all of it
            lends=bool(saves) or device == "cpu",
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
    """What a key is bound to: a server, one data-parallel rank of it, or a router with its servers behind it.

    `load` is the number of sequences sent to it and not answered yet.
    """

    url: str
    servers: list[Server]
    rank: int | None = None
    load: int = 0

    @contextmanager
    def asked(self, size: int) -> Iterator[None]:
        """Count `size` sequences as load for as long as the context lasts."""
        self.load += size
        try:
            yield
        finally:
            self.load -= size


def replicas_of(servers: list[Server], router: str | None, ranks: int) -> list[Replica]:
    """One for the router, or one for each rank of each server."""
    if router is not None:
        return [Replica(router.rstrip("/"), servers)]
    # Each data-parallel rank has a radix cache of its own, so a key is bound to a rank, not just to its server. With a
    # router, the router binds keys to servers.
    numbers = list(range(ranks)) if ranks > 1 else [None]
    return [Replica(server.url, [server], rank) for server in servers for rank in numbers]


@dataclass
class Placement:
    """Binds every key to the replica with the lowest load when the key first asks.

    A key moves to the idlest replica when its own has more than twice the load; its prefix is computed again there.
    """

    replicas: list[Replica]
    homes: dict[str, Replica] = field(default_factory=dict)

    @property
    def idlest(self) -> Replica:
        return min(self.replicas, key=lambda replica: replica.load)

    def home(self, key: str) -> tuple[Replica, bool]:
        """The key's replica, and whether it is new to it, so that nothing of the key is cached there."""
        # The slack keeps keys in place while loads are low, when twice as much is only a few sequences.
        home, idlest = self.homes.get(key), self.idlest
        if home is not None and home.load <= 2 * idlest.load + SLACK:
            return home, False
        self.homes[key] = idlest
        return idlest, True

    def forget(self) -> None:
        """Forget all bindings: with new weights, no server has anything cached."""
        self.homes.clear()
