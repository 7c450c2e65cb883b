"""Reads run folders for the report: results, logged metrics, settings, cost, analyses. Writes nothing.

Runs that differ in nothing but the seed form a group: they share a colour, and a mean is drawn of them.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from psr.data.jsonl import read_json
from psr.errors import UsageError
from psr.results import read_results
from psr.run_folder import RunFolder, search_figures

ANALYSES = ("evaluation", "comparison", "judge", "steps", "scaling", "scoring", "distribution")

NOTHING = "none"


@dataclass(frozen=True)
class Run:
    """A run as the report sees it.

    Args:
        folder: where it is.
        name: its folder's name, made unique.
        group: number of its group.
        label: what tells its group from the others, as in "judge random".
        results: of `results.json`; `models` are those with a number, in order.
        steps: the metrics of every optimizer step of the self-rewarding iterations, in order.
        settings: the resolved settings of every stage, flat: {"self_rewarding": {"model.init_args.lr": 1e-5}}.
        analyses: the files of `analysis/` by name, empty where there is none.
    """

    folder: RunFolder
    name: str
    group: int
    label: str
    results: dict[str, Any]
    steps: tuple[dict[str, float], ...]
    settings: dict[str, dict[str, Any]]
    analyses: dict[str, dict[str, Any]]

    @property
    def models(self) -> list[dict[str, Any]]:
        return self.results["models"]

    @property
    def numbers(self) -> list[int]:
        """The numbers of its models, 1 for M1."""
        return [int(model["name"][1:]) for model in self.models]

    def found_and_spent(self, number: int) -> dict[str, float | None]:
        """Rates and tokens of the search that made M`number`; empty where the engine counted nothing."""
        return search_figures(self.folder.iteration(number))


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs of the report, in the order given. Raises UsageError where a folder is none, or is named twice."""
    roots = [folder.resolve() for folder in folders]
    if len(set(roots)) < len(roots):
        raise UsageError(f"runs names the same folder twice: {', '.join(map(str, folders))}")
    kinds = [run_kind(root) for root in roots]
    order = list(dict.fromkeys(kinds))
    return [
        read_run(root, name, order.index(kind), group_label(kind, order))
        for root, name, kind in zip(roots, unique_names(roots), kinds, strict=True)
    ]


def read_run(root: Path, name: str, group: int, label: str) -> Run:
    folder = RunFolder(root)
    results = read_results(folder.results)
    if not results["models"]:
        raise UsageError(f"{root} holds no results ({folder.results}): name a folder that `psr run` wrote to")
    analyses = {kind: read_json(folder.analysis(kind)) for kind in ANALYSES}
    return Run(folder, name, group, label, results, read_steps(root), read_settings(root), analyses)


def run_kind(root: Path) -> tuple[tuple[str, str], ...]:
    """What names a run apart from its seed, as (field, value)."""
    named = {**read_json(root / "results.json"), **read_json(root / "run.json")}
    return tuple((field, str(named.get(field) or NOTHING)) for field in ("recipe", "judge", "overlay"))


def group_label(kind: tuple[tuple[str, str], ...], kinds: Sequence[tuple[tuple[str, str], ...]]) -> str:
    """The parts of `kind` that differ between the kinds, its recipe where none does."""
    differing = [i for i in range(len(kind)) if len({other[i] for other in kinds}) > 1]
    named = [kind[i] for i in differing if kind[i][1] != NOTHING]
    return ", ".join(value if field == "recipe" else f"{field} {value}" for field, value in named) or kind[0][1]


def unique_names(roots: Sequence[Path]) -> list[str]:
    """Folder names, with as many parents as it takes to tell them apart."""
    for parts in range(1, max((len(root.parts) for root in roots), default=1) + 1):
        names = ["/".join(root.parts[-parts:]) for root in roots]
        if len(set(names)) == len(names):
            return names
    return [str(root) for root in roots]


def read_steps(root: Path) -> tuple[dict[str, float], ...]:
    """The rows with a margin, of all logs of the run; what a resumed process logged again counts once, the last."""
    rows: dict[float, dict[str, float]] = {}
    for path in sorted(root.glob("*/*/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1])):
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                if row.get("train/margin"):
                    numbers = {name: float(value) for name, value in row.items() if value}
                    rows[numbers["step"]] = numbers
    return tuple(rows[step] for step in sorted(rows))


def read_settings(root: Path) -> dict[str, dict[str, Any]]:
    """The settings that every Lightning stage of the run resolved and saved, flat and without those that are null."""
    found = {}
    for path in [*sorted(root.glob("*/fit.yaml")), *sorted(root.glob("*/test.yaml"))]:
        values = dict(flatten(yaml.safe_load(path.read_text(encoding="utf-8")) or {}))
        found[path.parent.name] = {name: value for name, value in values.items() if value is not None}
    return found


def flatten(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Leaves of nested dictionaries and of lists of dictionaries, by dotted name."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flatten(inner, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for i, inner in enumerate(value):
            yield from flatten(inner, f"{prefix}.{i}")
    else:
        yield prefix, value
