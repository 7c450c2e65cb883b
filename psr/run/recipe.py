"""`psr run`: the stages of a recipe one after the other, each once; started again, it runs only what is missing.

Knows recipe files and overlays; what the stages were run with is on record (record.py). Every stage is a `psr` command
line; all paths in a stage's config are relative to the run directory.
"""

import contextlib
import json
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import yaml
from annotated_types import MinLen
from pydantic import ConfigDict
from rich.console import Console
from typing_extensions import TypedDict

from psr.bounds import Seed, bounded
from psr.curation.sources import HUB
from psr.errors import UsageError
from psr.files.documents import read_document
from psr.files.jsonl import read_json, write_json
from psr.files.kinds import Text
from psr.files.lock import hold
from psr.files.rows import checked
from psr.files.whole import write_text
from psr.processes.stopping import Interrupted
from psr.run.ending import show_end
from psr.run.folder import RunFolder, set_seconds
from psr.run.gate import best_model
from psr.run.launching import launch_stage
from psr.run.record import Settings, StageRecord, changes, read_records, refuse, stage_settings, write_records
from psr.run.redo import before, new_files, step_aside
from psr.run.results import note_accepted, read_results, start_results
from psr.terminal.progress import noted_in

JudgeKind = Literal["self", "random", "verifier"]


class StageFile(TypedDict):
    """A stage as a recipe writes it: see `Stage`."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    name: Text
    command: Text
    seconds_of: NotRequired[str]
    parallel: NotRequired[bool]


class RecipeFile(TypedDict):
    """What a recipe.yaml holds."""

    name: Text
    stages: Annotated[list[StageFile], MinLen(1)]
    variables: NotRequired[dict[str, str | int | float | bool]]
    folders: NotRequired[dict[str, str]]


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


@bounded()
def run(
    recipe: Path,
    run_dir: Path | None = None,
    seed: Seed = 0,
    judge: JudgeKind = "self",
    overlay: str | None = None,
    set: dict[str, Any] | None = None,
    launch: str = "",
    wait: bool = False,
    redo: str | None = None,
    accept_changes: bool = False,
    *,
    execute: Callable[[list[str]], None],
) -> None:
    """Run all stages of a recipe that are not done yet, then print the table of M1, M2, ... and write the report.

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
        wait: wait for the end of another process that works in run_dir, instead of refusing.
        redo: name of a stage to run again, and all that follow it; what they wrote steps aside, to run_dir/replaced.
        accept_changes: go on though stages were run with other settings than the recipe has now; results.json says so.
        execute: runs the command line of a stage; the command line hands itself over.
    """
    recipe = recipe.resolve()
    folder = RunFolder((run_dir or Path("runs") / recipe.name).resolve())
    spec = read_recipe(recipe)
    values = {**read_variables(spec, set or {}), "recipe": str(recipe), "seed": str(seed), "judge": judge}
    stages = [Stage(**stage) for stage in spec["stages"]]
    on_top = read_overlay(recipe, overlay, [stage.name for stage in stages])
    chosen = {name: values[name] for name in set} if set else None
    identity = {"recipe": spec["name"], "seed": seed, "judge": judge, "overlay": overlay, "set": chosen}
    console = Console()
    with hold(folder.root, wait) as share, contextlib.chdir(folder.root), noted_in(folder.progress):
        check_same_run(folder, identity)
        values["best"] = "{best}"  # on record as that: which model it is shows when the stage is run
        words = {stage.name: command_words(stage, values) for stage in stages}
        settings = {name: stage_settings(of, recipe, on_top.get(name)) for name, of in words.items()}
        records = go_on_from(folder, settings, redo, accept_changes)
        note_seconds(folder, stages, records)
        start_results(folder.results, spec["name"], seed, judge)
        for number, stage in enumerate(stages, start=1):
            if stage.name in records and records[stage.name].done:
                console.print(f"[dim]{number}/{len(stages)} {stage.name}: done before[/dim]")
                continue
            console.rule(f"{number}/{len(stages)} {stage.name}")
            records[stage.name] = StageRecord(settings[stage.name])
            write_records(folder.stages, records)
            named = {**values, "best": best_model(read_results(folder.results))}
            arguments = stage_arguments(stage, named, on_top.get(stage.name), folder.root)
            started = time.monotonic()
            try:
                if stage.parallel and launch:
                    launch_stage(launch, arguments, folder.root / "stopped", share)
                else:
                    execute(arguments)
            except KeyboardInterrupt as error:
                raise Interrupted(standing(stage.name, records)) from error
            note_done(folder, stages, records, stage.name, time.monotonic() - started)
    show_end(folder, console, execute)


def go_on_from(
    folder: RunFolder, settings: dict[str, Settings], redo: str | None, accept_changes: bool
) -> dict[str, StageRecord]:
    """The records of the stages that were begun, but for those that are to be run again.

    Raises:
        UsageError: a stage was run with other settings than it has now, which is not accepted.
    """
    records = read_records(folder.stages)
    if redo is not None:
        kept = before(records, redo)
        undone = {name: replace(record, seconds=None) for name, record in records.items()}
        write_records(folder.stages, {**undone, **kept})  # a kill on the way must not leave stages done without files
        step_aside(folder.root, kept)
        records = kept
    found = changes(records, settings)
    if found and not accept_changes:
        refuse(found, folder.root)
    if found:
        note_accepted(folder.results, [asdict(change) for change in found])
        records = {
            name: replace(record, settings=settings.get(name, record.settings)) for name, record in records.items()
        }
    write_records(folder.stages, records)
    return records


def note_done(
    folder: RunFolder, stages: list[Stage], records: dict[str, StageRecord], name: str, seconds: float
) -> None:
    """Put on record that a stage is done, and what M1 took by then."""
    models = tuple(model["name"] for model in read_results(folder.results)["models"])
    files = new_files(folder.root, records, name)
    records[name] = replace(records[name], seconds=seconds, files=files, models=models)
    note_seconds(folder, stages, records)
    write_records(folder.stages, records)


def note_seconds(folder: RunFolder, stages: list[Stage], records: dict[str, StageRecord]) -> None:
    """Say what M1 took: the sum of the stages that count as its search or training."""
    parts: dict[str, float] = {}
    for stage in stages:
        if stage.seconds_of and stage.name in records:
            parts[stage.seconds_of] = parts.get(stage.seconds_of, 0.0) + (records[stage.name].seconds or 0.0)
    if parts:
        set_seconds(folder.iteration(1), parts)


def standing(stage: str, records: dict[str, StageRecord]) -> str:
    """What a run has come to that was stopped in the middle of `stage`."""
    done = [name for name, record in records.items() if record.done]
    return (
        f"stopped by Ctrl-C. Done: {', '.join(done) or 'no stage'}. Not done: {stage}, of which stays what it had "
        "written by now; what was under way in it is lost and will be made again"
    )


def read_recipe(recipe: Path) -> dict[str, Any]:
    path = recipe / "recipe.yaml"
    if not path.is_file():
        raise UsageError(f"no recipe in {recipe}: expected {path}")
    return dict(checked(str(path), read_document(path), RecipeFile))


def read_variables(spec: dict[str, Any], given: dict[str, Any]) -> dict[str, str]:
    """The recipe's `variables` (plain text) and `folders` (existing ones, made absolute), with the values `given`.

    A relative folder, or the name of a file, is resolved against the directory of the `psr run` call, since stages run
    in the run directory. A folder may be "hub": public sets are then read by their names. Variables may name folders,
    as in "{data}/gsm8k".
    """
    folders = spec.get("folders", {})
    values = {**spec.get("variables", {}), **folders}
    unknown = sorted(given.keys() - values.keys())
    if unknown:
        raise UsageError(f"--set.{unknown[0]}: the recipe has no such variable, only {', '.join(values) or 'none'}")
    values = {name: value if isinstance(value, str) else json.dumps(value) for name, value in (values | given).items()}
    for name in folders:
        if values[name] == HUB:
            continue
        path = Path(values[name]).expanduser().resolve()
        if not path.is_dir():
            raise UsageError(f"the recipe's folder {name!r} is {path}, which does not exist: use --set.{name}=DIR")
        values[name] = str(path)
    for name in values.keys() - folders.keys():
        for folder in folders:
            values[name] = str(values[name]).replace(f"{{{folder}}}", values[folder])
        if name in given and Path(values[name]).is_file():
            values[name] = str(Path(values[name]).resolve())
    return values


def read_overlay(recipe: Path, overlay: str | None, stages: list[str]) -> dict[str, Any]:
    """The settings of an overlay, by stage."""
    if overlay is None:
        return {}
    path = recipe / f"{overlay}.yaml"
    if not path.is_file():
        raise UsageError(f"overlay is {overlay!r}, and there is no {path}")
    on_top = read_document(path)
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


def command_words(stage: Stage, values: dict[str, str]) -> list[str]:
    """The stage's command line, with placeholders filled in."""
    try:
        return [argument.format(**values) for argument in shlex.split(stage.command)]
    except KeyError as error:
        raise UsageError(f"stage {stage.name}: {{{error.args[0]}}} is no variable of the recipe; set it") from None


def stage_arguments(stage: Stage, values: dict[str, str], on_top: dict[str, Any] | None, run_dir: Path) -> list[str]:
    """The stage's command line with the overlay stacked as a last config file."""
    arguments = command_words(stage, values)
    if on_top is None:
        return arguments
    path = run_dir / "overlays" / f"{stage.name}.yaml"
    write_text(path, yaml.safe_dump(on_top))
    last_config = max(i for i, argument in enumerate(arguments) if argument == "--config") + 2
    return [*arguments[:last_config], "--config", str(path), *arguments[last_config:]]
