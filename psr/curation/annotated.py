"""Filters for EFT pairs: an annotator judges each in both orders, explanation first; then the split by problem.

Whatever labelled a pair first (a verifier, people, a PRM), it is kept only if the annotator names the labelled step in
both orders. Knows EFT rows and texts of replies, not who is asked, or how.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psr.curation.decontamination import Benchmarks, normalized
from psr.prompts.judged import judge_texts
from psr.prompts.templates import Prompts

SCHEMA = "psr-eft-1"


@dataclass
class EFTData:
    """What became of every pair: `rows` are kept, `rejects` are not and have a `reason`."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)

    def reject(self, row: Mapping[str, Any], reason: str, detail: str = "") -> None:
        self.rejects.append({"id": row["id"], "reason": reason, "detail": detail, **row})


def usable_pairs(rows: Iterable[Mapping[str, Any]], benchmarks: Benchmarks, data: EFTData) -> list[dict[str, Any]]:
    """The pairs worth asking about; rejected are those in a benchmark, with equal steps, or duplicates."""
    kept, seen = [], set()
    for row in rows:
        both = frozenset(row[side].strip() for side in ("chosen", "rejected"))
        key = (row["problem"], tuple(row["previous_steps"]), both)
        if (benchmark := benchmarks.holding(row["problem"])) is not None:
            data.reject(row, "in a benchmark", benchmark)
        elif len(both) < 2:
            data.reject(row, "equal steps")
        elif key in seen:
            data.reject(row, "pair twice")
        else:
            seen.add(key)
            kept.append(dict(row))
    return kept


def questions(row: Mapping[str, Any], prompts: Prompts) -> list[str]:
    """The judge prompts for the annotator about a pair: the chosen step first, then second."""
    return [text for text, _, _ in judge_texts(row, prompts)]


def take_judged(row: Mapping[str, Any], replies: Sequence[str], prompts: Prompts, data: EFTData) -> None:
    """Keep a pair with the annotator's explanations if both replies name the chosen step; reject it otherwise.

    `replies` belong to `questions`: in the first the chosen step is A, in the second it is B.
    """
    verdicts = [prompts.parse_verdict(reply) for reply in replies]
    if None in verdicts:
        data.reject({**row, "replies": list(replies)}, "unparsable")
    elif verdicts[0] == verdicts[1]:
        data.reject({**row, "replies": list(replies)}, "orders disagree", f"{verdicts[0]} both times")
    elif verdicts != ["A", "B"]:
        data.reject({**row, "replies": list(replies)}, "against the label")
    else:
        first, second = (explanation(reply, prompts, verdict) for reply, verdict in zip(replies, "AB", strict=True))
        if not first.strip() or not second.strip():
            data.reject({**row, "replies": list(replies)}, "no explanation", "the verdict must come last")
        else:
            data.rows.append({**row, "explanations": {"chosen_first": first, "rejected_first": second}})


def explanation(reply: str, prompts: Prompts, label: str) -> str:
    """The text of a reply before its last verdict."""
    return reply.rpartition(prompts.verdict_text(label))[0]


def split_by_problem(
    rows: Sequence[Mapping[str, Any]], heldout: int, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Shuffled training pairs, and about `heldout` pairs on problems that are not in the training pairs.

    Each row gets `shown`, the position ("A" or "B") of the chosen step for users who show a pair in one order only:
    half and half in either part. (Training and evaluation of `psr` show both orders.)
    """
    by_problem: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_problem.setdefault(normalized(row["problem"]), []).append(row)
    rng = random.Random(seed)
    names = sorted(by_problem)
    rng.shuffle(names)
    held: list[Mapping[str, Any]] = []
    while names and len(held) < heldout:
        held += by_problem[names.pop()]
    training = [row for name in names for row in by_problem[name]]
    parts = (rng.sample(part, len(part)) for part in (training, held))
    first, second = ([_with_place(row, i) for i, row in enumerate(part)] for part in parts)
    return first, second


def _with_place(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {"schema": SCHEMA, **row, "shown": "AB"[number % 2]}
