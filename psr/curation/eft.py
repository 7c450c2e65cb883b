"""EFT data from a verifier: pairs of the policy's own candidate steps at the same prefix, one right, one wrong.

The policy searches training problems with the verifier as its judge; right and wrong candidates of a step form pairs.
Does not know how the judge is trained on them.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from psr.records import Trajectory, Verifier

Explainer = Callable[[str, Sequence[str], str, str], str | None]
"""(problem, previous steps, step A, step B) -> the explanation that a good judge would write, or None."""


def verified_pairs(
    trajectory: Trajectory, verifier: Verifier, explain: Explainer | None, rng: random.Random, per_step: int = 1
) -> list[dict[str, Any]]:
    """EFT rows of one trajectory: at every kept step up to `per_step` pairs of a right and a wrong candidate."""
    rows: list[dict[str, Any]] = []
    steps: list[str] = []
    problem = trajectory.problem.problem
    for node in trajectory.kept:
        texts = list(dict.fromkeys(candidate.text.strip() for candidate in node.candidates))
        rated = [verifier(problem, steps, text) for text in texts]  # None, undecided: on neither side
        right, wrong = (
            [text for text, is_right in zip(texts, rated, strict=True) if is_right is side] for side in (True, False)
        )
        both = [(r, w) for r in right for w in wrong]
        for chosen, rejected in rng.sample(both, min(per_step, len(both))):
            row = _row(f"{trajectory.problem.id}/{node.depth}/{len(rows)}", problem, steps, chosen, rejected, explain)
            rows.extend([row] if row else [])
        steps.append(node.candidates[node.chosen].text.strip())
    return rows


def _row(
    name: str, problem: str, steps: list[str], chosen: str, rejected: str, explain: Explainer | None
) -> dict[str, Any] | None:
    row = {"id": name, "problem": problem, "previous_steps": list(steps), "chosen": chosen, "rejected": rejected}
    if explain is None:
        return row
    first, second = explain(problem, steps, chosen, rejected), explain(problem, steps, rejected, chosen)
    if first is None or second is None:
        return None
    return {**row, "explanations": {"chosen_first": first, "rejected_first": second}}
