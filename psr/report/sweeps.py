"""The sweeps of a run: a table of trials for every sweep, and their metric by iteration."""

from collections.abc import Iterator, Sequence
from typing import Any

from psr.report.charts import Chart, Dash, Item, Number, Series, Table
from psr.report.runs import Run
from psr.sweeps.results import Results, best_first, short_names, written

DRAWN = 12
"""Most trials in a figure; the table has all."""


def items(runs: Sequence[Run]) -> Iterator[Item]:
    found = [(run, name, results) for run in runs for name, results in run.sweeps.items()]
    for number, (run, name, results) in enumerate(found):
        of_run = "" if len(runs) == 1 else f" of {run.name}"
        yield course(f"sweep-{number}", f"Trials of {name}{of_run}", results)
        yield table(f"trials-{number}", f"Sweep {name}{of_run}", results)


def scale(results: Results) -> tuple[float, str]:
    """(factor, name of the metric with its unit): shares are shown in percent."""
    metric = results["metric"]
    return (100.0, f"{metric.replace('_', ' ')}, %") if metric.endswith("accuracy") else (1.0, metric)


def table(key: str, title: str, results: Results) -> Table:
    factor, metric = scale(results)
    short, models = short_names(results), models_of(results)
    rows = []
    for trial in best_first(results):
        measured = (shown(trial["by_iteration"].get(model), factor) for model in models)
        settings = (written(trial["settings"].get(name)) for name in short)
        rows.append((f"trial {trial['number']}", trial["state"], *measured, *settings))
    measure = metric.removesuffix(", %")
    caption = f"The best first, by the {measure} of the last model. A pruned trial was ended as worse than the median."
    return Table(key, title, caption, ("trial", "state", *models, *short.values()), tuple(rows))


def course(key: str, title: str, results: Results) -> Chart:
    """The metric by iteration, with the best trial highlighted."""
    factor, metric = scale(results)
    trials = [trial for trial in best_first(results) if trial["by_iteration"]]
    lines = tuple(line(trial, factor, best=i == 0) for i, trial in enumerate(trials[:DRAWN]))
    left_out = f" Only the best {DRAWN} are drawn." if len(trials) > DRAWN else ""
    caption = f"The thick line is the best trial, dotted ones were pruned.{left_out}"
    return Chart(key, title, caption, "model", metric, lines, y_range=(0.0, 100.0) if factor == 100 else None)


def line(trial: dict[str, Any], factor: float, best: bool) -> Series:
    measured = trial["by_iteration"]
    values: tuple[Number, ...] = tuple(factor * value for value in measured.values())
    pruned = trial["state"] == "pruned"
    name = "best trial" if best else "pruned trials" if pruned else "other trials"
    dash: Dash = "dot" if pruned else "solid"
    notes = (f"trial {trial['number']}",) * len(values)
    return Series(name, tuple(measured), values, colour=0 if best else 1, dash=dash, faint=not best, notes=notes)


def models_of(results: Results) -> list[str]:
    found = {model for trial in results["trials"] for model in trial["by_iteration"]}
    return sorted(found, key=lambda model: int(model[1:]))


def shown(value: Number, factor: float) -> str:
    return "–" if value is None else f"{factor * value:.1f}" if factor == 100 else written(value)
