"""How well a policy judges: held-out EFT pairs, each in both orders.

Knows EFT rows and engines. Does not know where the candidates come from.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from psr.engines.base import Engine, PromptTooLong
from psr.prompts.encoder import Encoder
from psr.prompts.judged import judge_prompts, judge_questions, score_prompt, written
from psr.prompts.templates import VERDICTS
from psr.search.fitting import SHOWN
from psr.search.judges import JudgeSettings, score_replies, verdicts
from psr.search.run import for_each

T = TypeVar("T")
log = logging.getLogger(__name__)


async def evaluate_judge(
    engine: Engine, encoder: Encoder, rows: Sequence[Mapping[str, Any]], settings: JudgeSettings
) -> dict[str, float]:
    """The metrics of JudgeMetric on EFT rows, and how many of them are too long: those count as without a verdict."""
    given, too_long = await judged_where_it_fits(engine, encoder, rows, settings)
    return {**judge_figures(given), "judge_too_long": float(len(too_long))}


def judge_figures(given: Sequence[int]) -> dict[str, float]:
    """The metrics of JudgeMetric for verdicts as returned by `judged`."""
    import torch

    from psr.evaluation.judge_metric import JudgeMetric

    metric = JudgeMetric()
    metric.update(torch.tensor(given), torch.tensor([0, 1] * (len(given) // 2)))
    return {name: float(value) for name, value in metric.compute().items()}


async def judged(
    engine: Engine, encoder: Encoder, rows: Sequence[Mapping[str, Any]], settings: JudgeSettings
) -> list[int]:
    """The verdicts on every row in both orders, by the judge of `settings.form`: see `pair_verdicts`.

    Raises:
        PromptTooLong: of one of the rows.
    """
    ask = {"pairwise": pair_verdicts, "score": score_verdicts}[settings.form]
    return await ask(engine, encoder, rows, settings)


async def judged_where_it_fits(
    engine: Engine, encoder: Encoder, rows: Sequence[Mapping[str, Any]], settings: JudgeSettings
) -> tuple[list[int], list[str]]:
    """As `judged`, with no verdict on the rows that are too long, and the names of these."""
    return await where_it_fits(rows, lambda some: judged(engine, encoder, some, settings), [-1, -1])


async def where_it_fits(
    rows: Sequence[Mapping[str, Any]],
    ask: Callable[[Sequence[Mapping[str, Any]]], Awaitable[list[T]]],
    nothing: list[T],
) -> tuple[list[T], list[str]]:
    """What `ask(rows)` gives, with `nothing` for each row whose prompt is too long, and the names of those rows."""
    try:
        return await ask(rows), []
    except PromptTooLong:
        pass  # it does not say which: asked one by one, each answers for itself
    too_long: list[str] = []

    async def one(numbered: tuple[int, Mapping[str, Any]]) -> list[T]:
        number, row = numbered
        try:
            return await ask([row])
        except PromptTooLong:
            too_long.append(str(row.get("id", f"row {number}")))
            return nothing

    found = await for_each(list(enumerate(rows, start=1)), one, "judge pairs")
    named = ", ".join(map(repr, too_long[:SHOWN])) + (", ..." if len(too_long) > SHOWN else "")
    log.warning("%d of %d judge pairs are too long and count as without a verdict: %s", len(too_long), len(rows), named)
    return [answer for answers in found for answer in answers], too_long


def length_bias(given: Sequence[int], rows: Sequence[Mapping[str, Any]], encoder: Encoder) -> float | None:
    """How much more often the judge names the longer side (in tokens) than that side is right: 0 is no bias.

    `given` as from `pair_verdicts`. Counts parsed verdicts on sides of different length; None if there are none.
    """
    named, right = [], []
    for number, row in enumerate(rows):
        chosen, rejected = (len(encoder.plain(written(row, side, encoder.prompts))) for side in ("chosen", "rejected"))
        for order, verdict in enumerate(given[2 * number : 2 * number + 2]):
            if chosen != rejected and verdict >= 0:
                named.append((verdict == order) == (chosen > rejected))
                right.append(chosen > rejected)
    return (sum(named) - sum(right)) / len(named) if named else None


def judge_shots(rows: Sequence[Mapping[str, Any]], encoder: Encoder, count: int) -> tuple[tuple[str, str], ...]:
    """(prompt, reply) of the first `count` rows, the right side alternately shown first and second."""
    shots = []
    for number, row in enumerate(rows[:count]):
        problem, steps, a, b, label, explanation = list(judge_questions(row, encoder.prompts))[number % 2]
        reply = explanation + encoder.prompts.verdict_text(label)
        shots.append(encoder.shot(problem, steps, a, b, reply))
    return tuple(shots)


async def pair_verdicts(
    engine: Engine, encoder: Encoder, rows: Sequence[Mapping[str, Any]], settings: JudgeSettings
) -> list[int]:
    """The verdicts on every row, its chosen side shown as A, then as B (0: A, 1: B, -1: none): (2 * rows,)."""
    prompts = [prompt for row in rows for prompt, _, _ in judge_prompts(row, encoder)]
    replies = await verdicts(engine, encoder, prompts, settings)
    return [-1 if label is None else VERDICTS.index(label) for label, _ in replies]


async def score_verdicts(
    engine: Engine, encoder: Encoder, rows: Sequence[Mapping[str, Any]], settings: JudgeSettings
) -> list[int]:
    """As `pair_verdicts`, for a scoring judge: it names the side with the higher score, whatever the order."""
    points = await pair_scores(engine, encoder, rows, settings)
    return [verdict for chosen, rejected in points for verdict in ORDERS[preference(chosen, rejected)]]


ORDERS = {0: (0, 1), 1: (1, 0), -1: (-1, -1)}
"""Verdicts in both orders, by the preferred side: the chosen one (0), the rejected one (1), or neither."""


async def pair_scores(
    engine: Engine, encoder: Encoder, rows: Sequence[Mapping[str, Any]], settings: JudgeSettings
) -> list[tuple[float | None, float | None]]:
    """The scores of the chosen and the rejected side of every row; None if unparsable."""
    prompts = [score_prompt(row, side, encoder) for row in rows for side in ("chosen", "rejected")]
    points = [score for score, _ in await score_replies(engine, encoder, prompts, settings)]
    return list(zip(points[::2], points[1::2], strict=True))


def preference(chosen: float | None, rejected: float | None) -> int:
    """0 if the chosen side has the higher score, 1 if the rejected one has, -1 if neither."""
    if chosen is None or rejected is None or chosen == rejected:
        return -1
    return 0 if chosen > rejected else 1
