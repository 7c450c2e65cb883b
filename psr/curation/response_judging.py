"""Judge data of whole responses from an exact verifier: pairs of responses, scored responses, scored steps.

What `psr.curation.eft` is for steps, for the other judges that a policy can be: one that compares whole responses, and
the additive one of SRLM (arXiv 2401.10020). Does not know who sampled the responses, or how a judge is trained on them.
"""

import random
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from psr.curation.arithmetic_responses import better_and_worse, explain_responses, lines, score
from psr.records import Problem

Row = dict[str, Any]


def response_pairs(problem: Problem, responses: Sequence[str], rng: random.Random, limit: int) -> list[Row]:
    """EFT rows of up to `limit` pairs of distinct responses, a better and a worse one."""
    rows: list[Row] = []
    distinct = list(dict.fromkeys(responses))
    pairs = list(combinations(distinct, 2))
    for a, b in rng.sample(pairs, len(pairs)):
        ranked = better_and_worse(problem.problem, a, b)
        if ranked is None or len(rows) == limit:
            continue
        chosen, rejected = ranked
        first = explain_responses(problem.problem, chosen, rejected)
        second = explain_responses(problem.problem, rejected, chosen)
        if first is None or second is None:
            continue
        row = {"id": f"{problem.id}/pair/{len(rows)}", "problem": problem.problem, "previous_steps": []}
        row |= {"chosen": chosen, "rejected": rejected, "granularity": "response"}
        rows.append({**row, "explanations": {"chosen_first": first, "rejected_first": second}})
    return rows


def scored_responses(problem: Problem, responses: Sequence[str], rng: random.Random, limit: int) -> list[Row]:
    """Up to `limit` distinct responses with their points and an explanation."""
    rows: list[Row] = []
    distinct = list(dict.fromkeys(responses))
    for response in rng.sample(distinct, len(distinct))[:limit]:
        rows += _scored(problem, [], response, "response", f"{problem.id}/score/{len(rows)}")
    return rows


def scored_steps(problem: Problem, responses: Sequence[str], rng: random.Random, limit: int) -> list[Row]:
    """Up to `limit` distinct steps of the responses, each at its place, with their points and an explanation."""
    rows: list[Row] = []
    placed = ((*lines(one)[:i], step) for one in responses for i, step in enumerate(lines(one)))
    steps = list(dict.fromkeys(placed))
    for *previous, step in rng.sample(steps, min(limit, len(steps))):
        rows += _scored(problem, previous, step, "step", f"{problem.id}/step/{len(rows)}")
    return rows


def _scored(problem: Problem, previous: list[str], response: str, granularity: str, name: str) -> list[Row]:
    told = score(problem.problem, previous, response)
    if told is None:
        return []
    row = {"id": name, "problem": problem.problem, "previous_steps": previous, "response": response}
    return [{**row, "granularity": granularity, "score": told[0], "explanation": told[1]}]
