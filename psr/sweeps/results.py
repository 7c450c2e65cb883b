"""The results of a sweep in a run directory: `trials/<sweep>.json`. Knows neither Optuna nor processes."""

from pathlib import Path
from typing import Any

from psr.files.jsonl import read_json, write_json
from psr.run.folder import RunFolder

Results = dict[str, Any]
"""`metric`, `maximize`, and `trials`, each with its number, state, value, `by_iteration` and settings."""


def write_sweep(base: Path, name: str, results: Results) -> None:
    write_json(RunFolder(base).trials / f"{name}.json", results)


def read_sweeps(base: Path) -> dict[str, Results]:
    """All sweeps of a run directory, by name."""
    return {path.stem: read_json(path) for path in sorted(RunFolder(base).trials.glob("*.json"))}


def best_first(results: Results) -> list[dict[str, Any]]:
    """The trials with a value, best first, then the others by their last measured value."""
    sign = 1 if results["maximize"] else -1

    def worth(trial: dict[str, Any]) -> tuple[bool, float]:
        measured = [trial["value"], *reversed(trial["by_iteration"].values())]
        known = next((value for value in measured if value is not None), None)
        return trial["value"] is not None, float("-inf") if known is None else sign * known

    return sorted(results["trials"], key=worth, reverse=True)


def short_names(results: Results) -> dict[str, str]:
    """The last part of each setting's dotted name, or the whole name where the last part is not unique."""
    names = list(dict.fromkeys(name for trial in results["trials"] for name in trial["settings"]))
    last = [name.rpartition(".")[2] for name in names]
    return {name: part if last.count(part) == 1 else name for name, part in zip(names, last, strict=True)}


def written(value: object) -> str:
    """A setting or a metric as text, to three significant digits."""
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
