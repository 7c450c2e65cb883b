"""All servers of an engine as one: weights loaded everywhere, requests answered in spite of failures.

A reply counts only if the weights that this fleet loaded last made it. A server that comes back without them (it was
restarted by somebody, or somebody else loaded others) gets them again before it is asked again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from psr.engines.sglang.protocol import Ask, flaw, generate_body
from psr.engines.sglang.replicas import Abilities, Placement, Replica, Server, replicas_of
from psr.engines.sglang.transport import Session, Transient, persist, request

log = logging.getLogger(__name__)

ROUTING_HEADER = "X-SMG-Routing-Key"
"""Where sglang-router reads a request's key."""


class Fleet:
    """Servers that serve the same weights.

    Args:
        servers: all of them.
        router: address that prompts go to instead of the servers' own.
        ranks: data-parallel ranks of each server.
        concurrency: sequences under way at the same time, for every server or rank.
        retries: further tries of a failed request.
        timeout: seconds for one HTTP request.
    """

    def __init__(
        self, servers: list[Server], router: str | None, ranks: int, concurrency: int, retries: int, timeout: float
    ) -> None:
        self.servers, self.placement = servers, Placement(replicas_of(servers, router, ranks))
        self.concurrency, self.retries, self.timeout = concurrency, retries, timeout
        self.folder, self.label = Path(), ""
        self._session: Session | None = None
        self._users = 0

    @property
    def busy(self) -> bool:
        """Whether requests are under way."""
        return self._users > 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """The connections: opened by the first who asks, closed by the last, since they belong to one event loop."""
        if self._session is None:
            limits = {one: self.concurrency * len(one.servers) for one in self.placement.replicas}
            self._session = Session(limits, self.timeout)
        session, self._users = self._session, self._users + 1
        try:
            yield session
        finally:
            self._users -= 1
            if not self._users:
                self._session = None
                await session.http.aclose()

    async def load(self, folder: Path, label: str) -> None:
        """Serve `folder` everywhere as weights `label`, starting the servers that are ours and do not run yet."""
        self.folder, self.label = folder, label
        self.placement.forget()
        async with self.session() as session:
            await asyncio.gather(*(self._load(session, server) for server in self.servers))

    async def _load(self, session: Session, server: Server) -> None:
        if server.owned is not None and not server.owned.alive:
            await server.start(session, self.folder, self.label)
            return

        async def revive(error: Transient) -> None:
            await self._revive(session, server, error)

        await persist(lambda: server.load(session, self.folder, self.label), revive, self.retries, server.url)

    async def abilities(self) -> Abilities:
        """What every one of the servers can do."""
        async with self.session() as session:
            found = await asyncio.gather(*(server.abilities(session) for server in self.servers))
        return Abilities(
            min(one.longest_prompt for one in found), all(one.seeded for one in found), all(one.lends for one in found)
        )

    async def sleep(self) -> None:
        async with self.session() as session:
            await asyncio.gather(*(server.sleep(session) for server in self.servers))

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
        """The replies to `asks`, in their order, all of them whole and made by the right weights."""
        body, headers = generate_body(asks, choices, replica.rank), {ROUTING_HEADER: key} if key else None

        async def ask() -> list[dict[str, Any]]:
            answer = await request(session.http, "POST", f"{replica.url}/generate", body, headers)
            replies = answer if isinstance(answer, list) else [answer]
            for reply in replies:
                fault = flaw(reply, self.label)
                if fault is not None:
                    raise Transient(fault)
            return replies

        async def recover(error: Transient) -> None:
            for server in replica.servers:
                await self._revive(session, server, error)

        return await persist(ask, recover, self.retries, replica.url)

    async def _revive(self, session: Session, server: Server, error: Transient) -> None:
        """See to it that the server runs, if it is ours, and that it has the weights, if it answers."""
        async with session.locks[server.url]:
            owned = server.owned
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
            except Transient:  # it is not back yet; the next try finds out
                return

    def close(self) -> None:
        """End the servers that are ours."""
        for server in self.servers:
            if server.owned is not None:
                server.owned.stop()
