"""`psr run`: the stages of a recipe one after the other, each once; started again, it runs only what is missing.

Knows recipe files, overlays and which stages are done. Every stage is a `psr` command line; all paths in a stage's
config are relative to the run directory.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console

from psr.errors import UsageError
from psr.files.jsonl import read_json, write_json
from psr.processes.stopping import MARK, PREEMPTED, listen, stop_asked
from psr.run.folder import RunFolder, add_seconds
from psr.run.gate import best_line, best_model, gate_table
from psr.run.results import read_results, results_table, start_results

JudgeKind = Literal["self", "random", "verifier"]


@dataclass(frozen=True)
class Stage:
    """A stage of a recipe.

    Args:
        name: its name, which overlays use too.
        command: a `psr` command line; {recipe}, {seed}, {judge}, {best} (the best model so far, as in M3), the recipe's
            variables and folders are filled in.
        seconds_of: part of M1's time ("search", "train") that the stage counts as.
        parallel: with `psr run --launch`, the stage runs in the processes that the launcher starts.
    """

    name: str
    command: str
    seconds_of: str | None = None
    parallel: bool = False


def run(
    recipe: Path,
    run_dir: Path | None = None,
    seed: int = 0,
    judge: JudgeKind = "self",
    overlay: str | None = None,
    set: dict[str, Any] | None = None,
    launch: str = "",
    *,
    execute: Callable[[list[str]], None],
) -> None:
    """Run all stages of a recipe that are not done yet, then print the table of M1, M2, ...

    Args:
        recipe: folder with recipe.yaml and the configs of its stages.
        run_dir: folder that everything is written to; by default runs/<name of the recipe's folder>.
        seed: seed of data, weights, sampling and training.
        judge: "self"; "random" and "verifier" are the lower and the upper bound, for debugging.
        overlay: name of a YAML file in the recipe's folder whose settings override the stages' configs.
        set: values for the recipe's variables and folders, as in --set.data=DIR; settings of several fields as JSON or
            YAML.
        launch: command that starts the processes of the recipe's parallel stages, and is given theirs, for instance
            "torchrun --nproc-per-node 8 --no-python" or "srun".
        execute: runs the command line of a stage; the command line hands itself over.
    """
    recipe = recipe.resolve()
    run_dir = (run_dir or Path("runs") / recipe.name).resolve()
    spec = read_recipe(recipe)
    values = {**read_variables(spec, set or {}), "recipe": str(recipe), "seed": str(seed), "judge": judge}
    stages = [Stage(**stage) for stage in spec["stages"]]
    on_top = read_overlay(recipe, overlay, [stage.name for stage in stages])
    console, folder = Console(), RunFolder(run_dir)
    chosen = {name: values[name] for name in set} if set else None
    identity = {"recipe": spec["name"], "seed": seed, "judge": judge, "overlay": overlay, "set": chosen}
    check_same_run(folder, identity)
    start_results(folder.results, spec["name"], seed, judge)
    done = read_json(run_dir / "stages.json")
    with contextlib.chdir(run_dir):
        for number, stage in enumerate(stages, start=1):
            if stage.name in done:
                console.print(f"[dim]{number}/{len(stages)} {stage.name}: done before[/dim]")
                continue
            console.rule(f"{number}/{len(stages)} {stage.name}")
            started = time.monotonic()
            best = best_model(read_results(folder.results))
            arguments = stage_arguments(stage, {**values, "best": best}, on_top.get(stage.name), run_dir)
            if stage.parallel and launch:
                start(launch, arguments, run_dir / "stopped")
            else:
                execute(arguments)
            seconds = time.monotonic() - started
            if stage.seconds_of:
                add_seconds(folder.iteration(1), stage.seconds_of, seconds)
            done[stage.name] = seconds
            write_json(run_dir / "stages.json", done)
    results = read_results(folder.results)
    for shown in (results_table(results), gate_table(results), best_line(results)):
        if shown is not None:
            console.print(shown)
    console.print(f"written to {folder.results}")


def start(launch: str, arguments: list[str], mark: Path) -> None:
    """Run a stage in processes of its own, forward a stop signal to them, and exit as they do if they fail.

    Preempted processes leave the file `mark`, since launchers do not pass on their exit code.
    """
    mark.unlink(missing_ok=True)
    process = subprocess.Popen([*shlex.split(launch), "psr", *arguments], env={**os.environ, MARK: str(mark)})
    before = listen(lambda number: process.terminate())  # every launcher forwards SIGTERM
    code = process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if mark.exists() or stop_asked():
        sys.exit(PREEMPTED)
    if code:
        sys.exit(code)


def read_recipe(recipe: Path) -> dict[str, Any]:
    path = recipe / "recipe.yaml"
    if not path.is_file():
        raise UsageError(f"no recipe in {recipe}: expected {path}")
    spec = yaml.safe_load(path.read_text())
    if not isinstance(spec, dict) or not {"name", "stages"} <= set(spec):
        raise UsageError(f"{path}: a recipe has a `name` and a list of `stages`")
    return spec


def read_variables(spec: dict[str, Any], given: dict[str, Any]) -> dict[str, str]:
    """The recipe's `variables` (plain text) and `folders` (existing ones, made absolute), with the values `given`.

    A relative folder is resolved against the directory of the `psr run` call, since stages run in the run directory.
    """
    folders = spec.get("folders", {})
    values = {**spec.get("variables", {}), **folders}
    unknown = sorted(given.keys() - values.keys())
    if unknown:
        raise UsageError(f"--set.{unknown[0]}: the recipe has no such variable, only {', '.join(values) or 'none'}")
    values |= {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    for name in folders:
        path = Path(values[name]).expanduser().resolve()
        if not path.is_dir():
            raise UsageError(f"the recipe's folder {name!r} is {path}, which does not exist: use --set.{name}=DIR")
        values[name] = str(path)
    return values


def read_overlay(recipe: Path, overlay: str | None, stages: list[str]) -> dict[str, Any]:
    """The settings of an overlay, by stage."""
    if overlay is None:
        return {}
    path = recipe / f"{overlay}.yaml"
    if not path.is_file():
        raise UsageError(f"overlay is {overlay!r}, and there is no {path}")
    on_top = yaml.safe_load(path.read_text())
    unknown = set(on_top) - set(stages)
    if unknown:
        raise UsageError(f"{path} names the stages {', '.join(sorted(unknown))}; the recipe has {', '.join(stages)}")
    return on_top


def check_same_run(folder: RunFolder, settings: dict[str, Any]) -> None:
    """A run directory belongs to one recipe, seed, judge, overlay and set of variables; raises UsageError otherwise."""
    path = folder.root / "run.json"
    before = read_json(path) or settings
    differing = [f"{name} {before.get(name)!r}" for name, value in settings.items() if before.get(name) != value]
    if differing:
        raise UsageError(f"run_dir {folder.root} holds a run with {', '.join(differing)}: choose another run_dir")
    write_json(path, settings)


def stage_arguments(stage: Stage, values: dict[str, str], on_top: dict[str, Any] | None, run_dir: Path) -> list[str]:
    """The stage's command line, with placeholders filled in and the overlay as its last config file."""
    try:
        arguments = [argument.format(**values) for argument in shlex.split(stage.command)]
    except KeyError as error:
        raise UsageError(f"stage {stage.name}: {{{error.args[0]}}} is no variable of the recipe; set it") from None
    if on_top is None:
        return arguments
    path = run_dir / "overlays" / f"{stage.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(on_top))
    last_config = max(i for i, argument in enumerate(arguments) if argument == "--config") + 2
    return [*arguments[:last_config], "--config", str(path), *arguments[last_config:]]
