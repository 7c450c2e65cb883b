"""HTTP as the engine needs it: retries with backoff, and a bound on the sequences in flight.

Knows httpx and status codes. Does not know what is sent.
"""

import asyncio
import math
import random
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx

from psr.engines.base import EngineError
from psr.keys import hidden
from psr.terminal.text import brief, printable

T = TypeVar("T")

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds before the first retry, and at most before any."""
BUSY = (408, 425, 429)
"""Status codes below 500 that ask to come again, as proxies and routers give them."""


class Transient(Exception):
    """A failure that may pass: no connection, a time-out, status 5xx or 429, a garbled reply. See `persist`, which no
    Transient gets past.
    """

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
        Transient: no whole reply in time, no connection, JSON that is none, or status 5xx, 408, 425 or 429.
        EngineError: any other status but success; the message is the server's own.
    """
    # Never longer than the settings say; and from the request to the end of the reply, where httpx's own time-out is
    # from one piece of the reply to the next.
    seconds = min(timeout or math.inf, http.timeout.read or math.inf)
    try:
        async with asyncio.timeout(seconds):
            reply = await http.request(method, url, json=body, headers=headers)
    except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout) as error:
        # A server that takes the connection and then says nothing may hang; one that takes none is merely gone.
        raise Transient(f"no reply in {seconds:.0f} s", timed_out=True) from error
    except httpx.RequestError as error:
        raise Transient(f"{type(error).__name__}: {str(error) or 'the connection broke'}") from error
    if reply.status_code >= 500 or reply.status_code in BUSY:
        raise Transient(f"status {reply.status_code}: {message(reply)}")
    if not reply.is_success:
        raise EngineError(f"SGLang at {url} refuses the request (status {reply.status_code}): {message(reply)}")
    if "json" not in reply.headers.get("content-type", ""):
        return reply.text
    try:
        return reply.json()
    except (ValueError, RecursionError):
        raise Transient(f"a reply that is no JSON: {brief(without_key(reply, reply.text))}") from None


def fields(answer: Any, *names: str) -> list[Any]:
    """Of a reply that ought to be an object with these. Raises Transient where it is something else."""
    if not isinstance(answer, dict) or not answer.keys() >= set(names):
        raise Transient(f"a reply without {' and '.join(names)}: {brief(answer)}")
    return [answer[name] for name in names]


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
        said = str(content["message"] if isinstance(content, dict) else content)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        said = reply.text
    return printable(" ".join(without_key(reply, said).split()))[:2000] or reply.reason_phrase


def without_key(reply: httpx.Response, said: str) -> str:
    return hidden(said, reply.request.headers.get("Authorization"))


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
    up the others), a lock per server address, and when a failure there was last looked into.

    Args:
        limits: most sequences in flight, by destination.
        timeout: seconds for one HTTP request.
        key: API key of the servers.
    """

    def __init__(self, limits: Mapping[Any, int], timeout: float, key: str | None = None) -> None:
        # The gates bound what is in flight; the pool of connections must not be a second, hidden queue.
        pool = httpx.Limits(max_connections=None, max_keepalive_connections=sum(limits.values()))
        times = httpx.Timeout(timeout, connect=10.0, pool=None)  # decoding may take minutes, connecting may not
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.http = httpx.AsyncClient(limits=pool, timeout=times, trust_env=False, headers=headers)
        self.gates = {one: Gate(limit) for one, limit in limits.items()}
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.seen_to: defaultdict[str, float] = defaultdict(float)
