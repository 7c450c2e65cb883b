"""Whether the stages of a recipe have settings that they can be run with, without running any.

What a stage reads may be made by an earlier one: that it is not there yet is no fault. Knows recipes. Does not know
what a stage does.
"""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from psr.files.jsonl import DataError
from psr.policy.tokenizer import PolicyError
from psr.run.recipe import Stage, read_overlay, read_recipe, read_variables, stage_arguments


def rehearse_run(
    rehearse: Callable[[list[str]], Any],
    recipe: Path,
    seed: int = 0,
    judge: str = "self",
    overlay: str | None = None,
    set: dict[str, Any] | None = None,
    **_: Any,
) -> None:
    """Rehearse every stage of `psr run` with these arguments, of which those that only say how it goes do not count.

    Raises:
        PSRError: a variable, an overlay or a setting of a stage is wrong.
    """
    recipe = recipe.resolve()
    spec = read_recipe(recipe)
    values = {**read_variables(spec, set or {}), "recipe": str(recipe), "seed": str(seed), "judge": judge}
    values["best"] = "M1"  # whichever it will be
    stages = [Stage(**stage) for stage in spec["stages"]]
    on_top = read_overlay(recipe, overlay, [stage.name for stage in stages])
    with tempfile.TemporaryDirectory(prefix="psr-rehearsal-") as folder, contextlib.chdir(folder):
        for stage in stages:
            with contextlib.suppress(PolicyError, DataError):
                rehearse(stage_arguments(stage, values, on_top.get(stage.name), Path(folder)))
