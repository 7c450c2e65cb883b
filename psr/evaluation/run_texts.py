"""The texts that a run's models were trained on: worked solutions, judgements, and the step pairs of its searches.

Knows the files of a run. Does not know what the texts are analysed for.
"""

import random
from pathlib import Path

from psr.errors import UsageError
from psr.files.jsonl import read_jsonl
from psr.prompts.judged import judge_texts, read_pairs
from psr.records import Trajectory, trajectory_from_json
from psr.run.folder import RunFolder
from psr.run.settings import RunSettings

TRAJECTORY = ["problem", "prompt_ids", "nodes", "finished", "weights_version", "seconds"]


def texts_of(settings: RunSettings, most: int, rng: random.Random) -> dict[str, dict[str, list[str]]]:
    """Prompts and responses of the data that made the run's models, at most this many of each: [part][set].

    Raises UsageError where the run has none of a kind.
    """
    prompts = settings.prompts
    worked = [row for path in settings.ift for row in read_jsonl(path, ["problem", "solution"])]
    pairs = [row for path in settings.eft for row in read_pairs(path)]
    kinds = {
        "IFT": [(prompts.reason_prompt(row["problem"]), row["solution"]) for row in worked],
        "EFT": [
            (text, explanation + prompts.verdict_text(label))
            for row in pairs
            for text, label, explanation in judge_texts(row, prompts)
        ],
        "PPD": [both for trajectory in searched(settings.run) for both in preferred(trajectory, settings)],
    }
    if short := [name for name, some in kinds.items() if len(some) < 2]:
        raise UsageError(f"{settings.run} has no {short[0]} data: the figure needs IFT, EFT and searched problems")
    drawn = {name: rng.sample(some, min(most, len(some))) for name, some in kinds.items()}
    parts = {"prompt": 0, "response": 1}
    return {part: {name: [both[i] for both in some] for name, some in drawn.items()} for part, i in parts.items()}


def searched(run: Path) -> list[Trajectory]:
    """The trajectories of all iterations."""
    folder, found = RunFolder(run), []
    number = 2
    while folder.traces(number).is_file():
        found += [trajectory_from_json(row) for row in read_jsonl(folder.traces(number), optional=TRAJECTORY)]
        number += 1
    return found


def preferred(trajectory: Trajectory, settings: RunSettings) -> list[tuple[str, str]]:
    """The prompt (problem and steps so far) and the chosen step of every pair of a trajectory."""
    found, so_far = [], settings.prompts.reason_prompt(trajectory.problem.problem)
    for node in trajectory.kept:
        step = node.candidates[node.chosen].text
        if node.margin > 0:
            found.append((so_far, step))
        so_far += step
    return found
