"""The texts that a run's models were trained on: worked solutions, judgements, and the step pairs of its searches.

Knows the files of a run. Does not know what the texts are analysed for.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from psr.errors import UsageError
from psr.files.kinds import Worked
from psr.files.rows import read_rows
from psr.files.trajectories import each_trajectory
from psr.prompts.judged import judge_texts, read_pairs
from psr.records import Trajectory
from psr.run.folder import RunFolder
from psr.run.settings import RunSettings

Item = TypeVar("Item")


def texts_of(settings: RunSettings, most: int, rng: random.Random) -> dict[str, dict[str, list[str]]]:
    """Prompts and responses of the data that made the run's models, at most this many of each: [part][set].

    Raises UsageError where the run has none of a kind.
    """
    prompts = settings.prompts
    worked = [row for path in settings.ift for row in read_rows(path, Worked)]
    pairs = [row for path in settings.eft for row in read_pairs(path)]
    kinds: dict[str, Callable[[], Iterable[tuple[str, str]]]] = {
        "IFT": lambda: ((prompts.reason_prompt(row["problem"]), row["solution"]) for row in worked),
        "EFT": lambda: (
            (text, explanation + prompts.verdict_text(label))
            for row in pairs
            for text, label, explanation in judge_texts(row, prompts)
        ),
        "PPD": lambda: (both for one in searched(settings.run) for both in preferred(one, settings)),
    }
    drawn = {name: sample(some, most, rng) for name, some in kinds.items()}
    if short := [name for name, some in drawn.items() if len(some) < 2]:
        raise UsageError(f"{settings.run} has no {short[0]} data: the figure needs IFT, EFT and searched problems")
    parts = {"prompt": 0, "response": 1}
    return {part: {name: [both[i] for both in some] for name, some in drawn.items()} for part, i in parts.items()}


def sample(items: Callable[[], Iterable[Item]], most: int, rng: random.Random) -> list[Item]:
    """At most so many of the items, which are gone through twice and not held: once to count, once to pick."""
    count = sum(1 for _ in items())
    places = {place: turn for turn, place in enumerate(rng.sample(range(count), min(most, count)))}
    found = [(places[place], item) for place, item in enumerate(items()) if place in places]
    return [item for _, item in sorted(found, key=lambda one: one[0])]


def searched(run: Path) -> Iterator[Trajectory]:
    """The trajectories of all iterations, one at a time."""
    folder, number = RunFolder(run), 2
    while folder.traces(number).is_file():
        yield from each_trajectory(folder.traces(number))
        number += 1


def preferred(trajectory: Trajectory, settings: RunSettings) -> list[tuple[str, str]]:
    """The prompt (problem and steps so far) and the chosen step of every pair of a trajectory."""
    found, so_far = [], settings.prompts.reason_prompt(trajectory.problem.problem)
    for node in trajectory.kept:
        step = node.candidates[node.chosen].text
        if node.margin > 0:
            found.append((so_far, step))
        so_far += step
    return found
