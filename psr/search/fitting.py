"""Problems that are too long for the model's context: found before a search, named, and left out or refused.

Knows the reasoning prompt and the context that a model folder states. Does not know engines: a server may be set to a
shorter context, and says so itself.
"""

import json
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import Literal

from psr.errors import UsageError
from psr.policy.tokenizer import check_folder
from psr.prompts.encoder import Encoder
from psr.records import Problem

TooLong = Literal["skip", "error"]
SHOWN = 10
"""Ids that a message names."""


def fitting(
    problems: Sequence[Problem],
    encoder: Encoder,
    folder: str | Path,
    source: str | Path,
    too_long: TooLong = "skip",
    say: Callable[[str], None] = print,
) -> list[Problem]:
    """The problems whose prompt leaves room for an answer; `say` is given a line that names the others.

    Raises:
        UsageError: there are others and `too_long` is "error", or no problem fits.
    """
    context = context_of(folder)
    fits = [encoder.reason_fits(problem.problem, context) for problem in problems]
    kept = list(compress(problems, fits))
    if len(kept) == len(problems):
        return kept
    others = [problem for problem, one in zip(problems, fits, strict=True) if not one]
    named = ", ".join(repr(problem.id) for problem in others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
    most = max(len(encoder.reason(problem.problem)) for problem in others)
    line = (
        f"{source}: {len(others)} of {len(problems)} problems are too long: a prompt of {most} tokens "
        f"leaves no room in the model's context of {context} tokens: {named}"
    )
    if too_long == "error" or not kept:
        raise UsageError(f"{line}: shorten the prompt template, drop them or use a model with a longer context")
    say(f"{line}. They are left out")
    return kept


def context_of(folder: str | Path) -> int:
    """Tokens of the model's context, as its config.json states them."""
    config = json.loads((check_folder(folder) / "config.json").read_text(encoding="utf-8"))
    return int(config.get("text_config", config)["max_position_embeddings"])
