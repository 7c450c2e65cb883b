"""`psr trial RECIPE BASE STAGE SETTING...`: runs one stage of a recipe again, with other settings, on a run's outputs.

The trial has a folder of its own, which shares the run's data and first models; its name is WANDB_RUN_ID where that is
set, as W&B's agent and `psr sweep` do. Started again with the same name it goes on.
"""

import contextlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from psr.errors import UsageError
from psr.files.jsonl import read_json
from psr.files.lock import hold
from psr.run.folder import RunFolder
from psr.run.gate import best_model
from psr.run.recipe import Stage, read_overlay, read_recipe, read_variables, stage_arguments
from psr.run.results import read_results, start_results

SHARED = ("data", "models/M0", "models/M1")


def trial(words: list[str], execute: Callable[[list[str]], None]) -> None:
    """Run it by `execute`, which takes a command line. Raises UsageError where there is no such run or stage."""
    args = words[1:]
    if len(args) < 3:
        raise UsageError("psr trial RECIPE BASE STAGE [--name=value ...]: BASE is the run directory to start from")
    recipe, base, name = Path(args[0]).resolve(), Path(args[1]).resolve(), args[2]
    before = read_json(base / "run.json")
    if not before:
        raise UsageError(f"BASE is {base}, which no `psr run` has made: run the recipe first, at least to {name}")
    spec = read_recipe(recipe)
    stages = {one.name: one for one in (Stage(**stage) for stage in spec["stages"])}
    if name not in stages:
        raise UsageError(f"STAGE is {name!r}, and the recipe has {', '.join(stages)}")
    folder = RunFolder(base).trials / os.environ.get("WANDB_RUN_ID", uuid.uuid4().hex[:8])
    folder.mkdir(parents=True, exist_ok=True)
    values = {**read_variables(spec, {}), "recipe": str(recipe), "seed": str(before["seed"]), "judge": before["judge"]}
    values["best"] = best_model(read_results(RunFolder(base).results))
    on_top = read_overlay(recipe, before["overlay"], list(stages)).get(name)
    # The trial's process of a killed sweep may take a moment to end.
    with hold(folder, wait=True), contextlib.chdir(folder):
        for part in map(Path, SHARED):
            if (base / part).exists() and not part.exists():
                part.parent.mkdir(exist_ok=True)
                part.symlink_to(base / part)
        start_results(RunFolder(folder).results, spec["name"], before["seed"], before["judge"])
        execute([*stage_arguments(stages[name], values, on_top, folder), *args[3:]])
