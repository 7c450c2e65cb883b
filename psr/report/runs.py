"""Reads run folders for the report: results, logged metrics, settings, cost, analyses. Writes nothing.

Runs that differ only in the seed form a group: they share a colour, and their mean is drawn.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from psr.errors import UsageError
from psr.files.jsonl import read_json
from psr.run.folder import RunFolder, search_figures
from psr.run.record import flatten
from psr.run.results import read_results
from psr.sweeps.results import Results, read_sweeps

ANALYSES = ("evaluation", "comparison", "judge", "steps", "scaling", "scoring", "distribution")

NAMED = ("recipe", "judge", "overlay", "method")
NOTHING = "none"

METHODS = {("step", "pairwise"): "PSRLM", ("response", "score"): "SRLM"}
"""Names of methods, by what is searched and how it is judged."""

LOOP = "data.init_args.problems_per_iteration"
"""A setting that only the self-rewarding stage has."""

Kind = tuple[tuple[str, str], ...]
"""(field, value) of everything but the seed; runs of the same kind differ only in the seed."""


@dataclass(frozen=True)
class Run:
    """A run as the report sees it.

    Args:
        folder: its run directory.
        name: its folder's name, made unique.
        group: number of its group.
        label: what distinguishes its group from the others, as in "judge random" or "SRLM".
        results: of `results.json`; `models` are those with a number, in order.
        steps: the metrics of every optimizer step of the self-rewarding iterations, in order.
        settings: the resolved settings of every stage, flat: {"self_rewarding": {"model.init_args.lr": 1e-5}}.
        analyses: the files of `analysis/` by name, empty where there is none.
        sweeps: the trials that started from it, by the name of their sweep.
    """

    folder: RunFolder
    name: str
    group: int
    label: str
    results: dict[str, Any]
    steps: tuple[dict[str, float], ...]
    settings: dict[str, dict[str, Any]]
    analyses: dict[str, dict[str, Any]]
    sweeps: dict[str, Results]

    @property
    def models(self) -> list[dict[str, Any]]:
        return self.results["models"]

    @property
    def numbers(self) -> list[int]:
        """The numbers of its models, 1 for M1."""
        return [int(model["name"][1:]) for model in self.models]

    def usage(self, number: int) -> dict[str, float | None]:
        """Rates and tokens of the search that trained M`number`; empty if the engine counted nothing."""
        return search_figures(self.folder.iteration(number))


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs of the report, in the order given. Raises UsageError if a folder is no run, or is named twice."""
    roots = [folder.resolve() for folder in folders]
    if not roots or len(set(roots)) < len(roots):
        raise UsageError(f"runs is {', '.join(map(str, folders)) or 'empty'}: name one or several different folders")
    settings = [read_settings(root) for root in roots]
    kinds = run_kinds(roots, settings)
    labels = group_labels(kinds)
    order = list(labels)
    return [
        read_run(root, name, stages, order.index(kind), labels[kind])
        for root, name, stages, kind in zip(roots, unique_names(roots), settings, kinds, strict=True)
    ]


def read_run(root: Path, name: str, settings: dict[str, dict[str, Any]], group: int, label: str) -> Run:
    folder = RunFolder(root)
    results = read_results(folder.results)
    if not results["models"]:
        raise UsageError(f"{root} holds no results ({folder.results}): name a folder that `psr run` wrote to")
    analyses = {kind: read_json(folder.analysis(kind)) for kind in ANALYSES}
    return Run(folder, name, group, label, results, read_steps(root), settings, analyses, read_sweeps(root))


def run_kinds(roots: Sequence[Path], settings: Sequence[dict[str, dict[str, Any]]]) -> list[Kind]:
    """The kind of each run: recipe, judge, overlay, and those settings of the loop that all runs have."""
    loops = [loop_settings(stages) for stages in settings]
    shared = [name for name in loops[0] if all(name in loop for loop in loops) and matters(name)]
    kinds = []
    for root, loop in zip(roots, loops, strict=True):
        named = {**read_json(root / "results.json"), **read_json(root / "run.json"), "method": method_of(loop)}
        fields = [(field, str(named.get(field) or NOTHING)) for field in NAMED]
        kinds.append((*fields, *((name.rpartition(".")[2], str(loop[name])) for name in shared)))
    return kinds


def method_of(loop: dict[str, Any]) -> str:
    """PSRLM, SRLM, or a word each for what is searched and how it is judged."""
    granularity = loop.get("data.init_args.search.granularity", "step")
    form = loop.get("data.init_args.judge.form", "pairwise")
    return METHODS.get((granularity, form), f"{granularity}, {form}")


def loop_settings(stages: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The settings of the self-rewarding stage; empty if it has not run."""
    return next((settings for settings in stages.values() if LOOP in settings), {})


def matters(name: str) -> bool:
    """Whether runs that differ in this setting are different methods, and not seeds of one."""
    return name.startswith(("model.", "data.")) and not name.endswith(("seed", "run_dir", ".problems", ".urls"))


def group_labels(kinds: Sequence[Kind]) -> dict[Kind, str]:
    """A short label for every distinct kind: the named fields that differ, and the settings if that is not enough."""
    distinct = list(dict.fromkeys(kinds))
    differing = [i for i in range(len(distinct[0])) if len({kind[i] for kind in distinct}) > 1]
    for places in ([i for i in differing if i < len(NAMED)], differing):
        labels = {kind: written_kind([kind[i] for i in places]) or kind[0][1] for kind in distinct}
        if len(set(labels.values())) == len(distinct):
            break
    return labels


def written_kind(parts: Sequence[tuple[str, str]]) -> str:
    """The parts of a label: recipes and methods are names by themselves, other values need the field's name."""
    said = [(field, value) for field, value in parts if value != NOTHING]
    return ", ".join(value if field in ("recipe", "method") else f"{field} {value}" for field, value in said)


def unique_names(roots: Sequence[Path]) -> list[str]:
    """Folder names, with as many parents as it takes to make them unique."""
    for parts in range(1, max((len(root.parts) for root in roots), default=1) + 1):
        names = ["/".join(root.parts[-parts:]) for root in roots]
        if len(set(names)) == len(names):
            return names
    return [str(root) for root in roots]


def read_steps(root: Path) -> tuple[dict[str, float], ...]:
    """The rows with a margin, from all logs of the run; of steps logged again after a resume, only the last.

    Values that are not finite, as of a training that diverged, are left out.
    """
    rows: dict[float, dict[str, float]] = {}
    for path in sorted(root.glob("*/*/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1])):
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                if row.get("train/margin"):
                    numbers = {name: float(value) for name, value in row.items() if value}
                    numbers = {name: value for name, value in numbers.items() if isfinite(value)}
                    rows[numbers["step"]] = numbers
    return tuple(rows[step] for step in sorted(rows))


def read_settings(root: Path) -> dict[str, dict[str, Any]]:
    """The resolved settings that every Lightning stage of the run saved, flat and without nulls."""
    found = {}
    for path in [*sorted(root.glob("*/fit.yaml")), *sorted(root.glob("*/test.yaml"))]:
        values = dict(flatten(yaml.safe_load(path.read_text(encoding="utf-8")) or {}))
        found[path.parent.name] = {name: value for name, value in values.items() if value is not None}
    return found
