"""`results.json` of a run: one entry per model M1, M2, ..., and the table that is printed from it."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from psr.files.jsonl import read_json, write_json

COLUMNS = {
    "accuracy": "greedy",
    "interval": "95%",
    "search_accuracy": "search",
    "judge_accuracy": "judge",
    "pairs": "pairs",
    "no_box": "no\nbox",
    "steps_per_solution": "steps",
    "step_length_tokens": "tokens\n/step",
}


def start_results(path: Path, recipe: str, seed: int, judge: str) -> None:
    """Name the run in `results.json`; what is already there of models and accepted changes stays."""
    before = read_json(path)
    write_json(path, {**before, "recipe": recipe, "seed": seed, "judge": judge, "models": before.get("models", [])})


def read_results(path: Path) -> dict[str, Any]:
    results = read_json(path)
    return {**results, "models": results.get("models", [])}


def put_model(path: Path, entry: dict[str, Any]) -> None:
    """Add or replace the entry of the model `entry["name"]`."""
    results = read_results(path)
    others = [model for model in results["models"] if model["name"] != entry["name"]]
    models = sorted([*others, entry], key=lambda model: int(model["name"][1:]))
    write_json(path, {**results, "models": models})


def update_model(path: Path, fields: dict[str, Any]) -> None:
    """Set these fields of the model `fields["name"]`; what else its entry holds stays."""
    before = [model for model in read_results(path)["models"] if model["name"] == fields["name"]]
    put_model(path, {**(before[0] if before else {}), **fields})


def keep_models(path: Path, names: Collection[str]) -> None:
    """Leave out all models but those named."""
    results = read_results(path)
    write_json(path, {**results, "models": [model for model in results["models"] if model["name"] in names]})


def note_accepted(path: Path, changes: list[dict[str, Any]]) -> None:
    """Say that the run went on with settings that some of its stages were not run with."""
    results = read_results(path)
    write_json(path, {**results, "accepted_changes": [*results.get("accepted_changes", []), *changes]})


def has_model(path: Path, name: str) -> bool:
    return any(model["name"] == name for model in read_results(path)["models"])


def results_table(results: dict[str, Any]) -> Table:
    """One row per model; shares in percent."""
    title = f"{results.get('recipe', 'run')}, seed {results.get('seed')}, judge {results.get('judge')}"
    if accepted := results.get("accepted_changes"):
        title += f"\n{len(accepted)} changes of settings accepted on the way, see results.json"
    seconds_of = ("search\ns", "train\ns", "eval\ns")
    table = Table("model", *COLUMNS.values(), *seconds_of, title=title, box=SIMPLE_HEAD, padding=0)
    for model in results["models"]:
        cells = [_cell(name, _figure(model, name)) for name in COLUMNS]
        seconds = [_cell("seconds", model["seconds"].get(part)) for part in ("search", "train", "evaluate")]
        table.add_row(model["name"], *cells, *seconds)
    return table


def _figure(model: dict[str, Any], name: str) -> Any:
    if name == "interval" and model.get("accuracy_low") is not None:
        return f"{100 * model['accuracy_low']:.0f}-{100 * model['accuracy_high']:.0f}"
    return model.get(name)


def _cell(name: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    if name.endswith("accuracy"):
        return f"{100 * value:.1f}"
    if name == "no_box":
        return f"{100 * value:.0f}"
    return f"{value:.0f}" if isinstance(value, int) or name == "seconds" else f"{value:.2f}"
