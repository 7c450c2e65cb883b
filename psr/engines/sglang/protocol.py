"""Requests and completions as the JSON of SGLang's native `/generate`, token ids in and out.

Pure functions: no HTTP, no server, no retries. SGLang silently accepts unknown fields, so the integration suite checks
that every name used here takes effect.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from psr.engines.base import Completion, FinishReason, Sampling
from psr.engines.usage import Usage
from psr.files.jsonl import DataError
from psr.files.rows import checked

SEED_STRIDE = 2**16
"""Seeds of a request's completions are consecutive; those of the next `sampling.seed` start this far away."""


MOST = 1e9
"""No log-probability is that far from 0; nor is NaN, or an infinity, less than that."""


def _log_probability(entry: list[Any]) -> list[Any]:
    """An entry of SGLang's lists: a log-probability, the token, and its text or null."""
    if len(entry) < 2 or type(entry[0]) not in (int, float) or type(entry[1]) is not int or not abs(entry[0]) < MOST:
        raise PydanticCustomError("log_probability", "it must be a log-probability and a token")
    return entry


Entry = Annotated[list[Any], AfterValidator(_log_probability)]


class Reason(TypedDict):
    type: Literal["stop", "length", "abort"]
    matched: NotRequired[int | str | list[int]]
    message: NotRequired[str | None]


class Span(TypedDict):
    version: str


class Meta(TypedDict):
    finish_reason: Reason
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    weight_version: str
    weight_versions: list[Span]
    output_token_logprobs: list[Entry]
    output_token_ids_logprobs: NotRequired[list[list[Entry]]]


class Reply(TypedDict):
    """What is read of the reply to one Ask."""

    output_ids: list[int]
    meta_info: Meta


@dataclass(frozen=True)
class Ask:
    """One sequence to be sent: a prompt with the sampling of one completion of it."""

    prompt: tuple[int, ...]
    parameters: dict[str, Any]


def completion_asks(prompt: Sequence[int], sampling: Sampling, room: int, eos: Collection[int]) -> list[Ask]:
    """One Ask for each of the `sampling.n` completions, at most `room` tokens long and ended by a token of `eos`.

    SGLang's own `n` would give all completions of a seeded request the same seed, and with it the same text.
    """
    common = {
        "max_new_tokens": min(sampling.max_new_tokens, room),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop": list(sampling.stop),
        "stop_token_ids": sorted(eos),
        "no_stop_trim": True,
    }
    seeds = (sampling.seed * SEED_STRIDE + index for index in range(sampling.n))
    return [Ask(tuple(prompt), {**common, "sampling_seed": seed % 2**63}) for seed in seeds]


def score_ask(prompt: Sequence[int]) -> Ask:
    """Asks for one greedy token; the log-probabilities of the choices are read at its position."""
    return Ask(tuple(prompt), {"max_new_tokens": 1, "temperature": 0.0})


def prefill_ask(prompt: Sequence[int]) -> Ask:
    """Only puts the prompt's keys and values into the cache."""
    return Ask(tuple(prompt), {"max_new_tokens": 0, "temperature": 0.0})


def usage_of(ask: Ask, reply: dict[str, Any]) -> Usage:
    """What a reply cost."""
    meta = reply["meta_info"]
    prompt, cached = meta["prompt_tokens"], meta["cached_tokens"]
    # A prefix sent ahead is not a prompt of the search. What it computed, the prompts that share it report as cached;
    # counted as negative here, it leaves in the sum what a single prompt would have had to compute.
    if ask.parameters["max_new_tokens"] == 0:
        return Usage(cached_tokens=cached - prompt)
    return Usage(1, prompt, cached, meta["completion_tokens"])


def generate_body(asks: Sequence[Ask], choices: Sequence[int], rank: int | None) -> dict[str, Any]:
    """The body of one `/generate` for all of `asks`; its reply is a list in the same order, for one ask the bare reply.

    A single ask is not sent as a list of one: sglang-router accepts no lists.
    """
    # Token ids, never text: the server's tokenization of a prefix could differ from the tokens that were sampled.
    body: dict[str, Any] = {
        "input_ids": [list(ask.prompt) for ask in asks],
        "sampling_params": [ask.parameters for ask in asks],
    }
    if choices:
        body["token_ids_logprob"] = [list(choices)] * len(asks)
    if len(asks) == 1:
        body = {name: value for name, [value] in body.items()}
    if rank is not None:
        body["routed_dp_rank"] = rank
    return {**body, "return_logprob": True}


def read_replies(content: Any, asks: Sequence[Ask], choices: Sequence[int]) -> list[dict[str, Any]]:
    """The replies in the JSON that `/generate` gave to all of `asks`.

    Raises:
        DataError: it is something else.
    """
    given = content if isinstance(content, list) else [content]
    if len(given) != len(asks):
        raise DataError(f"{len(given)} replies to {len(asks)} prompts")
    if not all(isinstance(one, dict) for one in given):
        raise DataError("a reply that is no object")
    read: list[dict[str, Any]] = [dict(checked("a reply", one, Reply)) for one in given]
    for one in read:
        scored = one["meta_info"].get("output_token_ids_logprobs")
        if choices and (not scored or not set(choices) <= {token for _, token, *_ in scored[0]}):
            raise DataError("a reply without the log-probabilities that were asked for")
    return read


def flaw(reply: dict[str, Any], label: str) -> str | None:
    """Why a reply must not be used, though a retry may succeed; None if it may be used.

    The server aborted it, or weights other than those labelled `label` generated some of it.
    """
    meta = reply["meta_info"]
    reason = meta["finish_reason"]
    if reason["type"] == "abort":
        return f"the server aborted the request: {reason.get('message')}"
    # One reply can span several versions: SGLang changes weights under running requests unless they are drained.
    served = {meta["weight_version"], *(span["version"] for span in meta["weight_versions"])}
    if served != {label}:
        return f"the server answered with the weights {', '.join(map(repr, sorted(served)))} instead of {label!r}"
    return None


def completion(reply: dict[str, Any], decode: Callable[[Sequence[int]], str], version: str) -> Completion:
    """A reply as a Completion. The text is decoded here, so that it does not depend on the server's settings."""
    meta = reply["meta_info"]
    ids = tuple(reply["output_ids"])
    logprob = sum(entry[0] for entry in meta["output_token_logprobs"])
    reason = finish_reason(meta["finish_reason"])
    return Completion(ids, decode(ids[:-1] if reason == "eos" else ids), reason, logprob, version)


def finish_reason(reason: dict[str, Any]) -> FinishReason:
    """SGLang reports "stop" for EOS as well, and names what matched: a token id, or one of the stop texts."""
    if reason["type"] == "length":
        return "length"
    return "eos" if isinstance(reason.get("matched"), int) else "stop"


def choice_logprobs(reply: dict[str, Any], choices: Sequence[int]) -> list[float]:
    """The log-probabilities of the choices as the first generated token."""
    # By token id, so as not to rely on the order in which SGLang returns them.
    first = {token: logprob for logprob, token, *_ in reply["meta_info"]["output_token_ids_logprobs"][0]}
    return [first[choice] for choice in choices]
