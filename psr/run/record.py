"""What the stages of a run were run with, on record in `stages.json`: what was edited since is noticed by name.

Knows command lines, config files and the run directory. Does not know what a stage does.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from psr.bounds import finite
from psr.errors import UsageError
from psr.files.jsonl import read_json, write_json

Settings = dict[str, Any]
"""Settings by dotted name, those of config files, overlays and the command line together."""
SHOWN = 8
"""A message names at most so many changes."""


@dataclass(frozen=True)
class StageRecord:
    """A stage that is done, or was begun.

    Args:
        settings: what it is run with.
        seconds: how long it took; None as long as it is not done.
        files: what it has written, relative to the run directory.
        models: the models that were measured when it was done.
    """

    settings: Settings
    seconds: float | None = None
    files: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        return self.seconds is not None


@dataclass(frozen=True)
class Change:
    """A setting of a stage that is on record with another value; None is no value."""

    stage: str
    setting: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.stage}: {self.setting} was {self.before} and is {self.now}"


def read_records(path: Path) -> dict[str, StageRecord]:
    """The records of a run's stages, in the order in which they were begun.

    Raises:
        UsageError: the file is of another kind.
    """
    records = {}
    for name, value in read_json(path).items():
        if not isinstance(value, dict) or not isinstance(value.get("settings"), dict):
            raise UsageError(f"{path}: {name} is {value!r}, which is no record of a stage: take another run_dir")
        lists = {part: tuple(value.get(part, ())) for part in ("files", "models")}
        records[name] = StageRecord(value["settings"], value.get("seconds"), **lists)
    return records


def write_records(path: Path, records: Mapping[str, StageRecord]) -> None:
    write_json(path, {name: asdict(record) for name, record in records.items()})


def stage_settings(arguments: Iterable[str], recipe: Path, on_top: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a stage's command line and of the config files that it names, with an overlay `on_top` of those.

    A file of the recipe counts by what it holds, not by where the recipe is.
    """
    configs: Settings = {}
    options: Settings = {}
    words, position = list(arguments), 0
    while words:
        name, equals, value = words.pop(0).partition("=")
        if not name.startswith("--"):
            position += 1
            options |= _valued(f"argument {position}", f"{name}{equals}{value}", recipe)
            continue
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        if name == "--config":
            configs |= dict(flatten(_read_config(Path(value))))
        else:
            options |= _valued(name.removeprefix("--"), value, recipe)
    found = {**configs, **dict(flatten(on_top or {})), **options}
    return {name: _scalar(value) for name, value in found.items()}


def changes(records: Mapping[str, StageRecord], now: Mapping[str, Settings]) -> list[Change]:
    """What is other now than on record, of all stages that were begun and are still in the recipe."""
    found = []
    for stage, record in records.items():
        for name in dict.fromkeys([*record.settings, *now.get(stage, {})]) if stage in now else ():
            before, after = record.settings.get(name), now[stage].get(name)
            if before != after:
                found.append(Change(stage, name, before, after))
    return found


def refuse(found: list[Change], run_dir: Path) -> None:
    """Raise UsageError with the changes by name and the ways out, if there are any."""
    if not found:
        return
    told = "; ".join(map(str, found[:SHOWN])) + (f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
    raise UsageError(
        f"stages of {run_dir} were run with other settings than they have now: {told}. Take another run_dir, run "
        f"{found[0].stage} and what follows again with --redo {found[0].stage}, or go on with --accept-changes, which "
        "results.json will say"
    )


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dictionaries and of lists of dictionaries, by dotted name."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flatten(inner, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for i, inner in enumerate(value):
            yield from flatten(inner, f"{prefix}.{i}")
    elif prefix:
        yield prefix, value


def _valued(name: str, text: str, recipe: Path) -> Settings:
    """A value of the command line; of a file of the recipe what it holds, of one that is no YAML its hash."""
    path = Path(text)
    if not path.is_relative_to(recipe):
        return {name: text}
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return dict(flatten(_read_config(path), name))
    place = f"{{recipe}}/{path.relative_to(recipe)}"
    if path.is_file():
        place += f" (sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]})"
    return {name: place}


def _scalar(value: Any) -> Any:
    """What a text says: a setting may move between the command line and a file, and 1e-3 is no number to YAML."""
    if not isinstance(value, str):
        return value
    if value in ("true", "false"):
        return value == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            number = kind(value)
            return number if finite(number) else value
    return value


def _read_config(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"{path}: no such config file")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no YAML ({' '.join(str(error).split())})") from None
