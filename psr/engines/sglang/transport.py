"""HTTP as the engine needs it: what is worth another try, how long to wait for it, and how much is under way.

Knows httpx and status codes. Does not know what is sent.
"""

import asyncio
import random
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx

from psr.engines.base import EngineError

T = TypeVar("T")

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds before the first, and at most before any, further try."""


class Transient(Exception):
    """A request that may do better next time: no connection, a time-out, or a server that says 5xx."""

    def __init__(self, message: str, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


def pause(tries: int) -> float:
    """Seconds to wait after so many failed tries: doubling, with jitter, so that requests do not come back at once."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)


async def request(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    body: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    timeout: float | None = None,
) -> Any:
    """The JSON (or, where it is none, the text) of a reply.

    Raises:
        Transient: no reply in time, no connection, or status 5xx.
        EngineError: any other status that is no success; the message is the server's own.
    """
    options = {} if timeout is None else {"timeout": timeout}
    try:
        reply = await http.request(method, url, json=body, headers=headers, **options)  # type: ignore[arg-type]
    except httpx.TransportError as error:
        timed_out = isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout)
        raise Transient(f"{type(error).__name__}: {error}".rstrip(": "), timed_out) from error
    if reply.status_code >= 500:
        raise Transient(f"status {reply.status_code}: {message(reply)}")
    if not reply.is_success:
        raise EngineError(f"SGLang at {url} refuses the request (status {reply.status_code}): {message(reply)}")
    return reply.json() if "json" in reply.headers.get("content-type", "") else reply.text


async def persist(
    action: Callable[[], Awaitable[T]], recover: Callable[[Transient], Awaitable[None]], retries: int, where: str
) -> T:
    """`action()`, tried again after a pause and `recover(error)` where it raised Transient.

    Raises:
        EngineError: it has failed `retries` + 1 times.
    """
    started, failed = time.monotonic(), 0
    while True:
        try:
            return await action()
        except Transient as error:
            failed += 1
            if failed > retries:
                raise EngineError(
                    f"SGLang at {where} failed {failed} times in {time.monotonic() - started:.0f} s, the last time "
                    f"with {error}. When it runs again, start this command again: what was searched is kept"
                ) from error
            await asyncio.sleep(pause(failed))
            await recover(error)


def message(reply: httpx.Response) -> str:
    """What the server says of its error."""
    try:
        content = reply.json()
        content = content.get("error", content)
        return str(content["message"] if isinstance(content, dict) else content)
    except (ValueError, KeyError, AttributeError, TypeError):
        return reply.text.strip()[:2000] or reply.reason_phrase


class Gate:
    """Lets in at most `limit` sequences at a time, first come, first served; a larger group waits until it is alone."""

    def __init__(self, limit: int) -> None:
        self.limit, self.inside = limit, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._admit()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self.inside -= size
            self._admit()

    def _admit(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.cancelled():
                if self.inside and self.inside + size > self.limit:
                    return
                self.inside += size
                turn.set_result(None)
            self._waiting.popleft()


class Session:
    """What lives as long as requests are under way: connections, a gate for everything that requests go to (a slow
    server must not hold up the others), one lock for each server's address.

    Args:
        limits: sequences under way at the same time, by what they go to.
        timeout: seconds for one HTTP request.
    """

    def __init__(self, limits: Mapping[Any, int], timeout: float) -> None:
        pool = httpx.Limits(max_connections=None, max_keepalive_connections=sum(limits.values()))
        times = httpx.Timeout(timeout, connect=10.0, pool=None)
        self.http = httpx.AsyncClient(limits=pool, timeout=times, trust_env=False)
        self.gates = {one: Gate(limit) for one, limit in limits.items()}
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
