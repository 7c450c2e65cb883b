"""All servers of an engine as one: weights loaded everywhere, requests answered in spite of failures.

A reply counts only if it was generated with the weights that this fleet loaded last. A server that comes back without
them (somebody restarted it, or loaded others) gets them again before it is asked again.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from psr.engines.sglang.protocol import Ask, flaw, generate_body, read_replies
from psr.engines.sglang.replicas import Abilities, Placement, Replica, Server, replicas_of
from psr.engines.sglang.transport import Session, Transient, persist, request
from psr.files.jsonl import DataError

T = TypeVar("T")
log = logging.getLogger(__name__)

ROUTING_HEADER = "X-SMG-Routing-Key"
"""The HTTP header in which sglang-router expects a request's key."""


def routing_key(key: str) -> str:
    """The key as a header may hold it: ids of problems may be long, and of any characters."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


class Fleet:
    """Servers that serve the same weights.

    Args:
        servers: all of them.
        router: address that prompts are sent to instead of the servers' own.
        ranks: data-parallel ranks of each server.
        concurrency: most sequences in flight, for every server or rank.
        retries: how often a failed request is retried.
        timeout: seconds for one HTTP request.
    """

    def __init__(
        self,
        servers: list[Server],
        router: str | None,
        ranks: int,
        concurrency: int,
        retries: int,
        timeout: float,
        key: str | None = None,
    ) -> None:
        self.servers, self.placement = servers, Placement(replicas_of(servers, router, ranks))
        self.concurrency, self.retries, self.timeout = concurrency, retries, timeout
        self.key = key
        self.folder, self.label = Path(), ""
        self._session: Session | None = None
        self._users = 0

    @property
    def busy(self) -> bool:
        """Whether requests are in flight."""
        return self._users > 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """The connections, opened by the first user and closed by the last."""
        # Not kept for the engine's life: they belong to one event loop, and each phase of a fit has its own.
        if self._session is None:
            limits = {one: self.concurrency * len(one.servers) for one in self.placement.replicas}
            self._session = Session(limits, self.timeout, self.key)
        session, self._users = self._session, self._users + 1
        try:
            yield session
        finally:
            self._users -= 1
            if not self._users:
                self._session = None
                await session.http.aclose()

    async def load(self, folder: Path, label: str) -> None:
        """Serve `folder` everywhere as weights `label`, starting our own servers that do not run yet."""
        self.folder, self.label = folder, label
        self.placement.forget()
        async with self.session() as session:
            await asyncio.gather(*(self._load(session, server) for server in self.servers))

    async def _load(self, session: Session, server: Server) -> None:
        if server.owned is not None and not server.owned.alive:  # it starts with these weights: nothing to load after
            await server.start(session, self.folder, self.label)
            return

        await self._persist(session, [server], lambda: server.load(session, self.folder, self.label), server.url)

    async def abilities(self) -> Abilities:
        """What every one of the servers can do."""
        async with self.session() as session:

            async def one(server: Server) -> Abilities:
                return await self._persist(session, [server], lambda: server.abilities(session), server.url)

            found = await asyncio.gather(*map(one, self.servers))
        return Abilities(
            min(one.longest_prompt for one in found), all(one.seeded for one in found), all(one.lends for one in found)
        )

    async def sleep(self) -> None:
        """Lend the memory of all servers. Nothing is repaired: there will be no weights to ask for."""
        async with self.session() as session:

            async def one(server: Server) -> None:
                await self._persist(session, [], lambda: server.sleep(session), server.url)

            await asyncio.gather(*map(one, self.servers))

    async def check(self) -> None:
        """Raise Transient or EngineError unless every server answers, with the weights that were loaded last."""
        async with self.session() as session:
            for server in self.servers:
                served = await server.version(session)
                if served != self.label:
                    raise Transient(f"{server.url} serves {served!r}, not {self.label!r}")

    async def generate(
        self, session: Session, replica: Replica, asks: Sequence[Ask], choices: Sequence[int], key: str
    ) -> list[dict[str, Any]]:
        """The replies to `asks`, in order, all of them complete and generated with the right weights."""
        body, headers = generate_body(asks, choices, replica.rank), {ROUTING_HEADER: routing_key(key)} if key else None

        async def ask() -> list[dict[str, Any]]:
            answer = await request(session.http, "POST", f"{replica.url}/generate", body, headers)
            try:
                replies = read_replies(answer, asks, choices)
            except DataError as error:
                raise Transient(f"a reply that is none of SGLang's: {error}") from None
            for reply in replies:
                fault = flaw(reply, self.label)
                if fault is not None:  # the whole chunk is asked again
                    raise Transient(fault)
            return replies

        return await self._persist(session, replica.servers, ask, replica.url)

    async def _persist(
        self, session: Session, servers: Sequence[Server], action: Callable[[], Awaitable[T]], where: str
    ) -> T:
        """`action()`, tried again after a failure, and after what is wrong with the servers has been repaired."""

        async def recover(error: Transient) -> None:
            for server in servers:
                await self._revive(session, server, error)

        return await persist(action, recover, self.retries, where)

    async def _revive(self, session: Session, server: Server, error: Transient) -> None:
        """Restart the server if it is ours and gone, and give it the weights again if it answers without them."""
        # Many requests fail at once when a server dies: the first that gets the lock repairs, the rest find it done.
        failed = time.monotonic()
        async with session.locks[server.url]:
            if session.seen_to[server.url] > failed:  # as we waited: to ask a server that hangs takes long
                return
            owned = server.owned
            # A time-out alone may mean a long queue. With a failing health check as well, the server hangs.
            if owned is not None and owned.alive and error.timed_out and not await server.healthy(session):
                log.warning("the SGLang server at %s hangs: it is started again", server.url)
                owned.stop()
            if owned is not None and not owned.alive:
                log.warning("the SGLang server at %s is gone (%s): it is started again", server.url, error)
                await server.start(session, self.folder, self.label)
            try:
                if await server.version(session) != self.label:
                    log.warning("SGLang at %s lacks the weights %s: they are loaded again", server.url, self.label)
                    await server.load(session, self.folder, self.label)
            except Transient:  # not back yet, as while somebody else restarts it: the next try comes here again
                pass
            session.seen_to[server.url] = time.monotonic()

    def close(self) -> None:
        """Stop our own servers."""
        for server in self.servers:
            if server.owned is not None:
                server.owned.stop()
