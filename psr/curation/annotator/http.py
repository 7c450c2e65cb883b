"""One request to an OpenAI-compatible endpoint, retried as the endpoint asks. Knows status codes and headers.

Retry-After (seconds, or a date) and OpenAI's `x-ratelimit-*` headers hold back all requests together.
"""

import asyncio
import contextlib
import random
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from psr.curation.annotator.settings import AnnotatorError, Endpoint, Reply

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
"""Seconds before the first retry, and at most before any, unless the endpoint sets a time."""
AGAIN = (408, 409, 429)
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


class RateLimit:
    """When the next request may be sent, by what the endpoint has said so far."""

    def __init__(self) -> None:
        self._open_at = 0.0

    async def wait(self, ended: asyncio.Event) -> None:
        while (left := self._open_at - time.monotonic()) > 0 and not ended.is_set():
            await sleep(left, ended)

    def close_for(self, seconds: float) -> None:
        self._open_at = max(self._open_at, time.monotonic() + seconds)

    def heed(self, headers: httpx.Headers) -> None:
        """Close while a budget of requests or tokens is used up, until it is reset."""
        for budget in ("requests", "tokens"):
            if headers.get(f"x-ratelimit-remaining-{budget}") == "0":
                self.close_for(duration(headers.get(f"x-ratelimit-reset-{budget}", "")) or FIRST_PAUSE)


def duration(text: str) -> float | None:
    """Seconds of "2", "1.5s", "6m0s" or "20ms"; None of anything else."""
    parts = DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


def retry_after(headers: httpx.Headers) -> float | None:
    """The seconds that the endpoint asks to wait, if it does."""
    if (milliseconds := headers.get("retry-after-ms", "")).isdigit():
        return int(milliseconds) / 1000
    text = headers.get("retry-after", "")
    if (seconds := duration(text)) is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def pause(tries: int) -> float:
    """Seconds to wait after `tries` failed tries: exponential backoff, with jitter so that retries do not coincide."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)


async def sleep(seconds: float, ended: asyncio.Event) -> None:
    """Wait this long, or until `ended`."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), seconds)


async def post(
    http: httpx.AsyncClient, endpoint: Endpoint, limit: RateLimit, ended: asyncio.Event, request: str, body: dict
) -> Reply:
    """The reply to `body`. `request`, its hash, is sent as Idempotency-Key, which some endpoints honour.

    Raises:
        AnnotatorError: the endpoint refuses, is unreachable after all retries or when `ended` is set, or its reply has
            another shape.
    """
    url, failed = endpoint.url.rstrip("/") + "/chat/completions", 0
    while True:
        await limit.wait(ended)
        if ended.is_set():
            raise AnnotatorError("the command has ended before the request could be sent")
        asked: float | None = None
        try:
            answer = await http.post(url, json=body, headers={"Idempotency-Key": request}, timeout=endpoint.timeout)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
        else:
            limit.heed(answer.headers)
            if answer.is_success:
                return _reply(url, answer)
            reason = f"status {answer.status_code}: {_message(answer)}"
            if answer.status_code not in AGAIN and answer.status_code < 500:
                raise AnnotatorError(f"{url} refuses the request ({reason})")
            asked = retry_after(answer.headers)
            if asked is not None and answer.status_code == 429:
                limit.close_for(asked)
        failed += 1
        if failed > endpoint.retries:
            raise AnnotatorError(
                f"{url} failed {failed} times, the last time with {reason}. Start the same command again when "
                "it works: the replies so far are kept"
            )
        await sleep(pause(failed) if asked is None else asked, ended)


def _reply(url: str, answer: httpx.Response) -> Reply:
    try:
        content: Any = answer.json()
        choice, usage = content["choices"][0], content.get("usage") or {}
        text = choice["message"]["content"] or ""
        reason = choice.get("finish_reason") or "stop"
        return Reply(text, reason, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise AnnotatorError(
            f"{url} does not answer as OpenAI's chat completions do ({error!r}): {answer.text[:200]!r}"
        ) from None


def _message(answer: httpx.Response) -> str:
    try:
        error = answer.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:500]
    except (ValueError, KeyError, TypeError):
        return answer.text.strip()[:500] or answer.reason_phrase
