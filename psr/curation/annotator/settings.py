"""The settings of an endpoint, and the form of requests and replies. Standard library only."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psr.bounds import Count, CountOrNone, Seconds, Temperature, Weight, bounded
from psr.errors import PSRError
from psr.keys import secret

Message = dict[str, str]


class AnnotatorError(PSRError, RuntimeError):
    """The endpoint cannot be reached, or refuses; the message says what to change."""


@bounded("annotator")
@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible endpoint and how to call it.

    Args:
        url: address before `/chat/completions`, as in https://api.openai.com/v1 or http://localhost:30000/v1.
        model: the endpoint's name for the model.
        key_env: environment variable that holds the API key; unset for a server that needs none. The key itself is
            never a setting, and is never written anywhere.
        temperature: sampling temperature.
        max_tokens: replies are cut off at this many tokens.
        concurrency: most requests in flight.
        retries: how often a request is retried after a refused connection, a time-out, status 408, 409, 429 or 5xx, or
            a reply that is torn.
        timeout: seconds for one try.
        price_in: price of a million prompt tokens, for the cost that is shown.
        price_out: price of a million generated tokens.
    """

    url: str
    model: str
    key_env: str | None = None
    temperature: Temperature = 0.0
    max_tokens: Count = 1024
    concurrency: Count = 16
    retries: CountOrNone = 8
    timeout: Seconds = 300.0
    price_in: Weight = 0.0
    price_out: Weight = 0.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise AnnotatorError(f"annotator.url is {self.url!r}: it must begin with http:// or https://")

    def key(self) -> str | None:
        """The key, read from the environment. Raises UsageError where there is none."""
        return secret("annotator.key_env", self.key_env)

    def body(self, messages: Sequence[Message]) -> dict[str, Any]:
        """The JSON of a request."""
        return {
            "model": self.model,
            "messages": list(messages),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def request_hash(body: dict[str, Any]) -> str:
    """The key under which a reply is stored: equal for equal requests, wherever they are sent."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class Reply:
    """A reply: the text, the finish reason ("stop", "length", ...), and the tokens that the endpoint counted."""

    text: str
    finish_reason: str
    prompt_tokens: int
    generated_tokens: int
