"""Human step ratings: PRM800K (Lightman et al. 2023, arXiv 2305.20050), in its own format or in ours.

Our format is a row `id`, `problem`, `steps`: [{"completions": [{"text", "rating", "chosen"}]}]; theirs holds the same
under `question` and `label`. Ratings are 1 (good), 0 (neutral), -1 (bad). EFT rows are read as well: the chosen step is
good, the rejected one bad, and the steps before have no rating. Knows rows; no tokenizer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psr.curation.sources import find_source, hub_rows
from psr.files.jsonl import DataError
from psr.files.tables import is_table, read_table

FIELDS = ("id", "problem", "steps", "question", "label", "previous_steps", "chosen", "rejected")


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
    """The trajectories of a file in any of the formats, or of a hub set ("prm800k" for short).

    Raises:
        DataError: no such file or set, or a row of another shape.
    """
    if is_table(path):
        rows = read_table(path, [], FIELDS)
    else:
        rows = [{name: row.get(name) for name in FIELDS if row.get(name) is not None} for row in _hub(path)]
    return [_trajectory(path, number, row) for number, row in enumerate(rows)]


def _hub(name: str | Path) -> Iterator[dict[str, Any]]:
    return hub_rows(find_source(str(name)))


def _trajectory(path: str | Path, number: int, row: dict[str, Any]) -> RatedTrajectory:
    try:
        if "label" in row:
            problem, steps = row["question"]["problem"], [_their_step(step) for step in row["label"]["steps"]]
        elif "chosen" in row:
            problem, steps = row["problem"], _steps_of_pair(row)
        else:
            problem, steps = row["problem"], [_our_step(step) for step in row["steps"]]
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"{path}, row {number + 1}: no rated trajectory ({error!r}); it needs `problem` and `steps`, or PRM800K's "
            "`question` and `label`"
        ) from None
    known = []
    for step in steps:
        known.append(step)
        if step.chosen is None:  # nothing follows a step that the solution does not continue with
            break
    return RatedTrajectory(str(row.get("id", number)), problem, tuple(known))


def _steps_of_pair(row: dict[str, Any]) -> list[RatedStep]:
    before = [RatedStep(((text, None),), 0) for text in row["previous_steps"]]
    return [*before, RatedStep(((row["chosen"], 1), (row["rejected"], -1)), None)]


def _our_step(step: dict[str, Any]) -> RatedStep:
    rated = [one for one in step["completions"] if one.get("rating") is not None or one.get("chosen")]
    chosen = [i for i, one in enumerate(rated) if one.get("chosen")]
    return RatedStep(tuple((one["text"], _rating(one)) for one in rated), chosen[0] if chosen else None)


def _their_step(step: dict[str, Any]) -> RatedStep:
    """Where no completion was good enough, annotators wrote the step themselves: it counts as good and is chosen."""
    ours = [{**one, "chosen": i == step["chosen_completion"]} for i, one in enumerate(step["completions"] or [])]
    if step.get("human_completion"):
        ours = [{**one, "chosen": False} for one in ours]
        ours.append({"text": step["human_completion"]["text"], "rating": 1, "chosen": True})
    return _our_step({"completions": ours})


def _rating(one: dict[str, Any]) -> int:
    """A chosen step without a rating was written by an annotator, and is good."""
    return 1 if one.get("rating") is None else int(one["rating"])


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
