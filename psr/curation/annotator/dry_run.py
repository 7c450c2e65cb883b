"""What a command would ask an annotator, without sending anything. Knows prompts and rough token counts."""

from collections.abc import Sequence

from psr.curation.annotator.settings import Endpoint
from psr.terminal.text import printable

CHARACTERS_PER_TOKEN = 3.5
"""Of mathematical English in the usual vocabularies; a little low, so that the estimate is a little high."""


def estimate(endpoint: Endpoint, asked: Sequence[str], examples: int = 2) -> str:
    """The text that `--dry-run` prints: distinct requests, tokens, the most it can cost, and the first requests."""
    distinct = list(dict.fromkeys(asked))
    characters = sum(map(len, distinct))
    tokens, reply = round(characters / CHARACTERS_PER_TOKEN), len(distinct) * endpoint.max_tokens
    lines = [
        f"{len(distinct):,} requests to {endpoint.url}, model {endpoint.model}",
        f"about {tokens:,} prompt tokens; at most {reply:,} generated ({endpoint.max_tokens:,} each)",
    ]
    if endpoint.price_in or endpoint.price_out:
        cost = (tokens * endpoint.price_in + reply * endpoint.price_out) / 1e6
        lines.append(f"at most about {cost:,.2f} in all")
    for number, prompt in enumerate(distinct[:examples], start=1):
        lines.append(f"--- example {number}\n{prompt}")
    return printable("\n".join(lines))
