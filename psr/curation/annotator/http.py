"""One request to an OpenAI-compatible endpoint, retried as the endpoint asks. Knows status codes and headers.

Retry-After (seconds, or a date) and OpenAI's `x-ratelimit-*` headers hold back all requests together.
"""

import asyncio
import contextlib
import random
import re
import time
from email.utils import parsedate_to_datetime
from typing import Annotated, NotRequired

import httpx
from annotated_types import MinLen
from typing_extensions import TypedDict

from psr.curation.annotator.settings import AnnotatorError, Endpoint, Reply
from psr.files.jsonl import DataError
from psr.files.rows import checked
from psr.keys import hidden
from psr.terminal.text import brief

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
            # From the request to the end of the reply; httpx's own time-out is from one piece to the next.
            async with asyncio.timeout(endpoint.timeout):
                answer = await http.post(url, json=body, headers={"Idempotency-Key": request}, timeout=endpoint.timeout)
        except TimeoutError:
            reason = f"no reply in {endpoint.timeout:.0f} s"
        except (httpx.RequestError, httpx.InvalidURL) as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
        else:
            limit.heed(answer.headers)
            if answer.is_success and _is_json(answer):
                return _reply(url, answer)
            reason = f"status {answer.status_code}: {_message(answer)}"
            if answer.is_success:
                reason = f"a reply that is no JSON: {brief(_text(answer))}"
            elif answer.status_code not in AGAIN and answer.status_code < 500:
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


class Message(TypedDict):
    content: str | None


class Choice(TypedDict):
    message: Message
    finish_reason: NotRequired[str | None]


class Counted(TypedDict):
    prompt_tokens: NotRequired[int | None]
    completion_tokens: NotRequired[int | None]


class Answer(TypedDict):
    """What is read of a chat completion."""

    choices: Annotated[list[Choice], MinLen(1)]
    usage: NotRequired[Counted]


def _reply(url: str, answer: httpx.Response) -> Reply:
    """Raises AnnotatorError where the endpoint speaks another language: JSON, but no chat completion of text."""
    try:
        content = answer.json()
        if not isinstance(content, dict):
            raise DataError(f"the reply is {type(content).__name__}, and not an object")
        read = checked("the reply", content, Answer)
    except DataError as error:
        raise AnnotatorError(
            f"{url} does not answer as OpenAI's chat completions do ({error}): {brief(_text(answer), 200)}"
        ) from None
    [choice, *_], usage = read["choices"], read.get("usage") or Counted()
    text, reason = choice["message"]["content"] or "", choice.get("finish_reason") or "stop"
    text = text.encode(errors="replace").decode()  # half a surrogate pair could be put into no file
    return Reply(text, reason, usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)


def _is_json(answer: httpx.Response) -> bool:
    try:
        answer.json()
    except (ValueError, RecursionError):
        return False
    return True


def _message(answer: httpx.Response) -> str:
    try:
        error = answer.json()["error"]
        said = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        said = answer.text
    return " ".join(hidden(said, answer.request.headers.get("Authorization")).split())[:500] or answer.reason_phrase


def _text(answer: httpx.Response) -> str:
    return hidden(answer.text, answer.request.headers.get("Authorization"))
