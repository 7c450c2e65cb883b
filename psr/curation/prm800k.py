"""Human step ratings: PRM800K (Lightman et al. 2023, arXiv 2305.20050), in its own format or in ours.

Our format is a row `id`, `problem`, `steps`: [{"completions": [{"text", "rating", "chosen"}]}]; theirs holds the same
under `question` and `label`. Ratings are 1 (good), 0 (neutral), -1 (bad). EFT rows are read as well: the chosen step is
good, the rejected one bad, and the steps before have no rating. Knows rows; no tokenizer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psr.curation.sources import find_source, hub_rows, located
from psr.files.jsonl import DataError
from psr.files.kinds import Completion, Pair, PRM800KRated, PRM800KStep, Rated
from psr.files.rows import checked
from psr.files.tables import is_table, located_rows


@dataclass(frozen=True)
class RatedStep:
    """The candidates of one step, (text, rating or None), and the index of the one that the solution continues with."""

    candidates: tuple[tuple[str, int | None], ...]
    chosen: int | None


@dataclass(frozen=True)
class RatedTrajectory:
    """A solution with human step ratings; all steps but the last have a chosen candidate."""

    id: str
    problem: str
    steps: tuple[RatedStep, ...]

    @property
    def chosen_texts(self) -> list[str]:
        """The chosen steps in order, up to the first that has none."""
        return [step.candidates[step.chosen][0] for step in self.steps if step.chosen is not None]


def read_trajectories(path: str | Path) -> list[RatedTrajectory]:
    """The trajectories of a file in any of the formats, or of a hub set ("prm800k" for short, or as `located`).

    Raises:
        DataError: no such file or set, or a row of another shape.
    """
    path = located(str(path))
    rows = located_rows(path) if is_table(path) else _hub(path)
    return [_trajectory(where, number, row) for number, (where, row) in enumerate(rows)]


def _hub(name: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in enumerate(hub_rows(find_source(str(name))), start=1):
        yield f"{name}, row {number}", {field: value for field, value in row.items() if value is not None}


def _trajectory(where: str, number: int, row: dict[str, Any]) -> RatedTrajectory:
    if "label" in row:
        theirs = checked(where, row, PRM800KRated)
        name, problem = theirs.get("id"), theirs["question"]["problem"]
        steps = [_their_step(where, step) for step in theirs["label"]["steps"]]
    elif "chosen" in row:
        pair = checked(where, row, Pair)
        name, problem, steps = pair.get("id"), pair["problem"], _steps_of_pair(pair)
    elif "steps" in row:
        ours = checked(where, row, Rated)
        name, problem = ours.get("id"), ours["problem"]
        steps = [_our_step(step["completions"]) for step in ours["steps"]]
    else:
        raise DataError(
            f"{where}: no rated trajectory; it needs `problem` and `steps`, or PRM800K's `question` and `label`; "
            f"the row has {', '.join(row) or 'none'}"
        )
    known = []
    for step in steps:
        known.append(step)
        if step.chosen is None:  # nothing follows a step that the solution does not continue with
            break
    return RatedTrajectory(str(number) if name is None else name, problem, tuple(known))


def _steps_of_pair(row: Pair) -> list[RatedStep]:
    before = [RatedStep(((text, None),), 0) for text in row["previous_steps"]]
    return [*before, RatedStep(((row["chosen"], 1), (row["rejected"], -1)), None)]


def _our_step(completions: Sequence[Completion]) -> RatedStep:
    rated = [one for one in completions if one.get("rating") is not None or one.get("chosen")]
    chosen = [i for i, one in enumerate(rated) if one.get("chosen")]
    return RatedStep(tuple((one["text"], _rating(one)) for one in rated), chosen[0] if chosen else None)


def _their_step(where: str, step: PRM800KStep) -> RatedStep:
    """Where no completion was good enough, annotators wrote the step themselves: it counts as good and is chosen."""
    completions, index = step["completions"] or [], step["chosen_completion"]
    if index is not None and not 0 <= index < len(completions):
        raise DataError(f"{where}: chosen_completion is {index}, and the step has {len(completions)} completions")
    ours: list[Completion] = [{**one, "chosen": i == index} for i, one in enumerate(completions)]
    if (human := step.get("human_completion")) is not None:
        ours = [{**one, "chosen": False} for one in ours]
        ours.append({"text": human["text"], "rating": 1, "chosen": True})
    return _our_step(ours)


def _rating(one: Completion) -> int:
    """A chosen step without a rating was written by an annotator, and is good."""
    rating = one.get("rating")
    return 1 if rating is None else rating


def rated_pairs(trajectory: RatedTrajectory) -> Iterator[dict[str, Any]]:
    """EFT rows: at every step the first good candidate against every bad one."""
    previous: list[str] = []
    for step in trajectory.steps:
        good = list(dict.fromkeys(text for text, rating in step.candidates if rating == 1))
        bad = list(dict.fromkeys(text for text, rating in step.candidates if rating == -1))
        chosen = None if step.chosen is None else step.candidates[step.chosen][0]
        best = chosen if chosen in good else (good[0] if good else None)
        for number, text in enumerate(bad if best is not None else []):
            name = f"{trajectory.id}/{len(previous)}/{number}"
            yield {
                "id": name,
                "problem": trajectory.problem,
                "previous_steps": list(previous),
                "chosen": best,
                "rejected": text,
            }
        if chosen is not None:
            previous.append(chosen)
