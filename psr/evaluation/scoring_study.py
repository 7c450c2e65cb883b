"""Comparing two candidates against scoring each: which is repeatable, and which is right (the paper's Table 6).

Knows judged pairs with right labels (people's, or an exact verifier's) and engines.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from psr.engines.base import Engine
from psr.engines.meter import Meter
from psr.evaluation.judging import pair_scores, pair_verdicts, preference, where_it_fits
from psr.prompts.encoder import Encoder
from psr.search.judges import JudgeSettings

NOBODY = -1
TEMPERATURE = 0.7
"""Sampling temperature of scores, as in Self-Rewarding Language Models (arXiv 2401.10020)."""


async def study(
    engine: Engine, encoder: Encoder, rows: Sequence[Mapping[str, Any]], settings: JudgeSettings
) -> list[dict[str, Any]]:
    """Consistency and agreement of both forms on the same pairs.

    A pairwise judge is asked in both orders and is consistent if both name the same side. A scoring judge, for which
    there is no order, scores both sides twice with different sampling seeds and is consistent if the outcome is the
    same: higher, lower or equal. Agreement is the share of pairs whose better side is named (by both orders, or by the
    first scores); a tie does not agree. Unparsable is the share of replies without a verdict or a score; a pair that is
    too long for the context has none.
    """
    comparing, scoring = Meter(engine), Meter(engine)
    orders, too_long = await where_it_fits(
        rows, lambda some: pair_verdicts(comparing, encoder, some, settings), [NOBODY, NOBODY]
    )
    named = [first if first + second == 1 else NOBODY for first, second in zip(orders[::2], orders[1::2], strict=True)]

    async def scores(seed: int) -> tuple[list[tuple[float | None, float | None]], list[str]]:
        again = replace(settings, seed=seed, score_temperature=TEMPERATURE)
        return await where_it_fits(rows, lambda some: pair_scores(scoring, encoder, some, again), [(None, None)])

    (one_round, long_scored), (other_round, _) = [await scores(seed) for seed in (settings.seed, settings.seed + 1)]
    first, second = ([preference(*points) for points in some] for some in (one_round, other_round))
    replies = [point for some in (one_round, other_round) for points in some for point in points]
    return [
        {
            "form": "pairwise",
            "consistency": _share(one != NOBODY for one in named),
            "agreement": _share(one == 0 for one in named),
            "tied": _share(one == NOBODY for one in named),
            "unparsable": _share(one == NOBODY for one in orders),
            "too_long": len(too_long),
            "questions": len(orders),
            "generated_tokens": comparing.generated_tokens,
        },
        {
            "form": "score",
            "consistency": _share(one == other for one, other in zip(first, second, strict=True)),
            "agreement": _share(one == 0 for one in first),
            "tied": _share(one == NOBODY for one in first),
            "unparsable": _share(point is None for point in replies),
            "too_long": len(long_scored),
            "questions": len(replies),
            "generated_tokens": scoring.generated_tokens,
        },
    ]


def _share(values: Iterable[bool]) -> float:
    values = list(values)
    return sum(values) / len(values)
