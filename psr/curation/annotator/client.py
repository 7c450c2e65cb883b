"""Client of an annotator: each distinct request is sent once over all runs of a command; counts tokens and cost.

Knows messages and replies. Requests are sent by the courier, a separate process (see courier.py).
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from psr.curation.annotator.settings import AnnotatorError, Endpoint, Message, Reply, request_hash

ENDED = "the process that sends the annotator's requests has ended; what it said is above"


@dataclass(frozen=True)
class Spent:
    """Sums over replies."""

    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0

    def __add__(self, reply: Reply) -> "Spent":
        tokens = self.prompt_tokens + reply.prompt_tokens, self.generated_tokens + reply.generated_tokens
        return Spent(self.requests + 1, *tokens)

    def line(self, endpoint: Endpoint) -> str:
        """For instance "812 requests, 1,203,004 + 95,110 tokens, cost 1.25"."""
        cost = (self.prompt_tokens * endpoint.price_in + self.generated_tokens * endpoint.price_out) / 1e6
        price = f", cost {cost:.2f}" if cost else ""
        return f"{self.requests:,} requests, {self.prompt_tokens:,} + {self.generated_tokens:,} tokens{price}"


@dataclass
class Annotator:
    """Asks the endpoint through a courier; use it as `async with Annotator(endpoint, journal) as annotator`.

    Args:
        endpoint: the endpoint and its settings.
        journal: file that keeps all replies; equal requests are answered from it.

    `sent` are the replies that this run paid for, `used` all replies including those from the journal.
    """

    endpoint: Endpoint
    journal: Path
    sent: Spent = Spent()
    used: Spent = Spent()

    async def __aenter__(self) -> "Annotator":
        self.endpoint.key()  # report a missing key before anything starts
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        self._courier = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "psr.curation.annotator.courier", str(self.journal), self.endpoint.to_json()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # what kills the command's process group must not kill the courier
            limit=2**24,
        )
        self._reader = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._courier.stdin is not None
        self._courier.stdin.close()
        await self._courier.wait()
        await self._reader

    async def ask(self, messages: Sequence[Message]) -> Reply:
        """The reply to `messages`. Raises AnnotatorError if the endpoint refuses or remains unreachable."""
        body = self.endpoint.body(messages)
        request = request_hash(body)
        if request not in self._waiting:
            if self._reader.done():
                raise AnnotatorError(ENDED)
            self._waiting[request] = asyncio.get_running_loop().create_future()
            assert self._courier.stdin is not None
            self._courier.stdin.write(json.dumps(body).encode() + b"\n")
            with contextlib.suppress(ConnectionError):  # of a courier that has ended, which `_read` tells
                await self._courier.stdin.drain()
        return await asyncio.shield(self._waiting[request])

    async def _read(self) -> None:
        """Pass every reply of the courier to the coroutine that waits for it."""
        assert self._courier.stdout is not None
        try:
            while line := await self._courier.stdout.readline():
                row = json.loads(line)
                self._settle(row.pop("request"), row)
        finally:  # also where a line is longer than can be read
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(AnnotatorError(ENDED))
                    waiting.exception()  # marks the exception as retrieved: perhaps nobody waits for it any more

    def _settle(self, request: str, row: dict) -> None:
        waiting = self._waiting[request]
        if "error" in row:
            waiting.set_exception(AnnotatorError(row["error"]))
            waiting.exception()  # as above: where one request fails, those who asked for others may have gone
            return
        kept, reply = row.pop("kept"), Reply(**row)
        self.used += reply
        if not kept:
            self.sent += reply
        waiting.set_result(reply)
