"""What requests to an engine cost, counted by kind, and the metrics that are logged and shown.

Knows counts and seconds. Does not know engines, or what a kind stands for.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Usage:
    """Sums over requests; a request is one completion, or one scored prompt.

    Args:
        requests: how many there were.
        prompt_tokens: tokens of their prompts.
        cached_tokens: prompt tokens found in the prefix cache.
        generated_tokens: tokens decoded.
        seconds: from request to reply, summed over requests; divided by the wall time, the mean number in flight.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


def used_between(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, Usage]:
    """What was used between two readings of `Engine.usage`."""
    return {kind: usage - before.get(kind, Usage()) for kind, usage in after.items()}


def add_usage(one: Mapping[str, Usage], other: Mapping[str, Usage]) -> dict[str, Usage]:
    return {kind: one.get(kind, Usage()) + other.get(kind, Usage()) for kind in sorted({*one, *other})}


def usage_figures(usage: Mapping[str, Usage], seconds: float) -> dict[str, float | None]:
    """Rates over `seconds` of wall time, of all requests together and the cache hit rate of every kind."""
    total = sum(usage.values(), Usage())
    return {
        "requests": total.requests,
        "requests_in_flight": total.seconds / seconds if seconds else None,
        "generated_tokens_per_second": total.generated_tokens / seconds if seconds else None,
        "prompt_tokens": total.prompt_tokens,
        "prompt_tokens_computed": total.prompt_tokens - total.cached_tokens,
        "generated_tokens": total.generated_tokens,
        "cache_hit_rate": cache_hit_rate(total),
        **{f"cache_hit_rate_{kind}": cache_hit_rate(one) for kind, one in sorted(usage.items())},
    }


def cache_hit_rate(usage: Usage) -> float | None:
    """Cached share of the prompt tokens, None of no prompt."""
    return usage.cached_tokens / usage.prompt_tokens if usage.prompt_tokens else None


def usage_line(usage: Mapping[str, Usage], seconds: float) -> str:
    """The metrics for a progress line, as in "57 in flight, 812 tokens/s, cache 74%"; empty before the first reply."""
    figures = usage_figures(usage, seconds)
    hits, in_flight, rate = (
        figures[name] for name in ("cache_hit_rate", "requests_in_flight", "generated_tokens_per_second")
    )
    if hits is None or in_flight is None or rate is None:
        return ""
    return f"{in_flight:.0f} in flight, {rate:.0f} tokens/s, cache {100 * hits:.0f}%"


def usage_to_json(usage: Mapping[str, Usage]) -> dict[str, dict[str, float]]:
    return {kind: asdict(one) for kind, one in usage.items()}


def usage_from_json(rows: Mapping[str, dict[str, float]]) -> dict[str, Usage]:
    return {kind: Usage(**row) for kind, row in rows.items()}  # type: ignore[arg-type]
