"""Judged pairs and scored responses of training files, as the prompts and replies of a judge.

The rows are `Pair` and `Scored` of `psr.files.kinds`; whole responses have one step a line. Does not know who judged
them, or how a judge is trained or measured.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from psr.files.kinds import Pair, Scored
from psr.files.rows import read_rows
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts


def read_pairs(path: str | Path, limit: int | None = None) -> list[Pair]:
    """EFT rows of a file. Raises DataError as `read_rows`, or where both sides of a pair are the same."""
    return read_rows(path, Pair, limit, flaw=_same_sides)


def _same_sides(row: Pair) -> str | None:
    """One prompt would be learnt with both labels."""
    same = row["chosen"].strip() == row["rejected"].strip()
    return "chosen and rejected are the same text, so that neither can be better: drop the row" if same else None


def read_scored(path: str | Path, limit: int | None = None) -> list[Scored]:
    """Scored rows of a file. Raises DataError as `read_rows`."""
    return read_rows(path, Scored, limit)


def judge_prompts(row: Mapping[str, Any], encoder: Encoder) -> Iterator[tuple[tuple[int, ...], str, str]]:
    """(prompt, right label, explanation or "") of an EFT row in both orders."""
    for problem, steps, a, b, label, explanation in judge_questions(row, encoder.prompts):
        yield encoder.judge(problem, steps, a, b), label, explanation


def judge_texts(row: Mapping[str, Any], prompts: Prompts) -> Iterator[tuple[str, str, str]]:
    """As `judge_prompts`, the prompts as texts."""
    for problem, steps, a, b, label, explanation in judge_questions(row, prompts):
        yield prompts.judge_prompt(problem, steps, a, b), label, explanation


def judge_questions(row: Mapping[str, Any], prompts: Prompts) -> Iterator[tuple[str, str, str, str, str, str]]:
    """(problem, steps so far, A, B, right label, explanation or "") of an EFT row in both orders."""
    steps = previous_steps(row, prompts)
    chosen, rejected = (written(row, side, prompts) for side in ("chosen", "rejected"))
    explanations = row.get("explanations") or {}
    yield row["problem"], steps, chosen, rejected, "A", explanations.get("chosen_first", "")
    yield row["problem"], steps, rejected, chosen, "B", explanations.get("rejected_first", "")


def score_prompt(row: Mapping[str, Any], side: str, encoder: Encoder) -> tuple[int, ...]:
    """The prompt that asks for the score of what the row holds as `side`: "response", "chosen" or "rejected"."""
    return encoder.score(row["problem"], previous_steps(row, encoder.prompts), written(row, side, encoder.prompts))


def previous_steps(row: Mapping[str, Any], prompts: Prompts) -> str:
    return "".join(prompts.format_step(i + 1, step, last=False) for i, step in enumerate(row["previous_steps"]))


def written(row: Mapping[str, Any], side: str, prompts: Prompts) -> str:
    """The row's step, or whole response, in the step format."""
    if row.get("granularity", "step") == "response":
        return prompts.format_steps(row[side].strip().split("\n"))
    return prompts.format_step(len(row["previous_steps"]) + 1, row[side], last=True)
