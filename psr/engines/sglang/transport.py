"""HTTP as the engine needs it: retries with backoff, and a bound on the sequences in flight.

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
"""Seconds before the first retry, and at most before any."""


class Transient(Exception):
    """A failure that may pass: no connection, a time-out, or status 5xx. Never reaches the user: see `persist`."""

    def __init__(self, message: str, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


def pause(tries: int) -> float:
    """Seconds to wait after `tries` failed tries: exponential backoff, with jitter so that retries do not coincide."""
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
        EngineError: any other status but success; the message is the server's own.
    """
    options = {} if timeout is None else {"timeout": timeout}
    try:
        reply = await http.request(method, url, json=body, headers=headers, **options)  # type: ignore[arg-type]
    except httpx.TransportError as error:
        # A server that takes the connection and then says nothing may hang; one that takes none is merely gone.
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
    """`action()`, retried after a pause and `recover(error)` where it raised Transient.

    Raises:
        EngineError: it failed `retries` + 1 times.
    """
    # Anything but Transient, such as a refused request, would only fail again and is raised at once.
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
    """The server's own error message."""
    try:
        content = reply.json()
        content = content.get("error", content)
        return str(content["message"] if isinstance(content, dict) else content)
    except (ValueError, KeyError, AttributeError, TypeError):
        return reply.text.strip()[:2000] or reply.reason_phrase


class Gate:
    """Admits at most `limit` sequences at a time, first come, first served; a larger group waits until it is alone."""

    # Unlike a semaphore it takes a group at once: two groups that acquire piece by piece could block each other.

    def __init__(self, limit: int) -> None:
        self.limit, self.inside = limit, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        turn = asyncio.get_running_loop().create_future()  # done when admitted
        self._waiting.append((size, turn))
        self._admit()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():  # admitted, also if the caller was cancelled right after
                self.inside -= size
            self._admit()

    def _admit(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.cancelled():
                # Nobody overtakes: a large group in front would otherwise never find enough room.
                if self.inside and self.inside + size > self.limit:
                    return
                self.inside += size
                turn.set_result(None)
            self._waiting.popleft()


class Session:
    """What lives as long as requests are in flight: connections, a gate per destination (a slow server must not hold
    up the others), a lock per server address.

    Args:
        limits: most sequences in flight, by destination.
        timeout: seconds for one HTTP request.
    """

    def __init__(self, limits: Mapping[Any, int], timeout: float) -> None:
        # The gates bound what is in flight; the pool of connections must not be a second, hidden queue.
        pool = httpx.Limits(max_connections=None, max_keepalive_connections=sum(limits.values()))
        times = httpx.Timeout(timeout, connect=10.0, pool=None)  # decoding may take minutes, connecting may not
        self.http = httpx.AsyncClient(limits=pool, timeout=times, trust_env=False)
        self.gates = {one: Gate(limit) for one, limit in limits.items()}
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
