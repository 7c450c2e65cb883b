"""Figures and tables of the results of `psr evaluate` and `psr analyse`: benchmarks, judge, steps, scaling, data.

Every function reads the files of `analysis/` and returns a Missing, with the command to run, if no run has the file.
"""

from collections.abc import Sequence
from typing import Any

from psr.evaluation.statistics import wilson_interval
from psr.report.charts import Chart, Dash, Item, Missing, Number, Series, Table, percent, signed
from psr.report.runs import Run

Rows = list[tuple[Run, dict[str, Any]]]

METHODS = {"step": "step search", "majority": "majority vote", "best_of_n": "best of n", "beam": "beam search"}
DASHES: dict[str, Dash] = {"step": "solid", "majority": "dash"}


def rows_of(runs: Sequence[Run], analysis: str, field: str) -> Rows:
    """The entries of a list of an analysis, with their runs."""
    return [(run, row) for run in runs for row in run.analyses[analysis].get(field, [])]


def run_name(run: Run, runs: Sequence[Run]) -> str:
    """The label that distinguishes a run from the others of the report; empty if it is the only one."""
    alone = sum(other.group == run.group for other in runs) == 1
    return "" if len(runs) == 1 else run.label if alone else run.name


def joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def shown(value: Number, stderr: Number = None) -> str:
    """A share in percent, with its standard error if there is one."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}".replace("-", "−") + ("" if stderr is None else f" ± {100 * stderr:.1f}")


def benchmarks(runs: Sequence[Run]) -> Item:
    rows = rows_of(runs, "evaluation", "results")
    title = "Benchmarks"
    if not rows:
        return Missing("benchmarks", title, "psr evaluate")
    names = list(dict.fromkeys(row["benchmark"] for _, row in rows))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for run, row in rows:
        method = row["method"] if row["width"] == 1 else f"{row['method']} {row['width']}"
        name = joined(run_name(run, runs), row["model"])
        lines.setdefault((name, method), {})[row["benchmark"]] = shown(row["accuracy"], row["accuracy_stderr"])
        if row.get("average") is not None:
            average = lines.setdefault((name, f"average of {row['width']}"), {})
            average[row["benchmark"]] = shown(row["average"], row["average_stderr"])
    body = tuple((*line, *(cells.get(name, "–") for name in names)) for line, cells in lines.items())
    caption = "Accuracy in percent ± standard error, of the problems that have a reference answer."
    return Table("benchmarks", title, caption, ("model", "method", *names), body)


def comparisons(runs: Sequence[Run]) -> Item:
    rows = rows_of(runs, "comparison", "comparisons")
    title = "Differences between models"
    if not rows:
        return Missing("comparisons", title, "psr evaluate")
    body = [
        (
            joined(run_name(run, runs), f"{row['a']} to {row['b']}"),
            row["benchmark"],
            row["method"],
            f"{row['problems']:,}",
            signed(100 * row["difference"]),
            f"{signed(100 * row['low'])} to {signed(100 * row['high'])}",
        )
        for run, row in rows
    ]
    caption = f"Percentage points on the same problems; paired bootstrap, {100 * rows[0][1]['level']:.0f}% interval."
    header = ("models", "benchmark", "method", "problems", "difference", "interval")
    return Table("comparisons", title, caption, header, tuple(body))


def judges(runs: Sequence[Run]) -> Item:
    rows = rows_of(runs, "judge", "judges")
    title = "Judge evaluation"
    if not rows:
        return Missing("judges", title, "psr analyse judge")
    body = [
        (
            joined(run_name(run, runs), row["model"]),
            row["form"] + (f", {row['shots']}-shot" if row["shots"] else ""),
            shown(row["accuracy"], row["accuracy_stderr"]),
            *(shown(row[name]) for name in ("consistency", "position_bias", "length_bias", "unparsable")),
        )
        for run, row in rows
    ]
    caption = "Held-out judge pairs in both orders, in percent; a bias is in percentage points and 0 without one."
    header = ("model", "judge", "accuracy", "consistency", "position bias", "length bias", "unparsable")
    return Table("judges", title, caption, header, tuple(body))


def scoring(runs: Sequence[Run]) -> Item:
    rows = rows_of(runs, "scoring", "judges")
    title = "Pairwise judging against scoring"
    if not rows:
        return Missing("scoring", title, "psr analyse scoring")
    body = [
        (
            joined(run_name(run, runs), row["model"]),
            row["form"],
            *(shown(row[name]) for name in ("consistency", "agreement", "tied", "unparsable")),
            f"{row['generated_tokens']:,}",
        )
        for run, row in rows
    ]
    caption = "In percent; agreement is with exact labels. Tokens are what the judge generated."
    header = ("model", "judge", "consistency", "agreement", "tied", "unparsable", "tokens")
    return Table("scoring", title, caption, header, tuple(body))


def step_histogram(runs: Sequence[Run]) -> Item:
    rows = rows_of(runs, "steps", "models")
    title = "Solutions by number of steps"
    if not rows:
        return Missing("step-histogram", title, "psr analyse steps")
    series = []
    for i, (run, row) in enumerate(rows):
        counts = sorted((int(steps), count) for steps, count in row["histogram"].items())
        total = sum(count for _, count in counts)
        name = joined(run_name(run, runs), row["model"], row["benchmark"])
        shares = tuple(100 * count / total for _, count in counts)
        series.append(Series(name, tuple(float(steps) for steps, _ in counts), shares, colour=i))
    caption = "Share of the solutions that came to an end, by how many steps they took."
    return Chart("step-histogram", title, caption, "steps", "solutions, %", tuple(series))


def scaling(runs: Sequence[Run]) -> Item:
    """Accuracy against cost: a line per run, model and method."""
    rows = rows_of(runs, "scaling", "points")
    title = "Test-time scaling"
    if not rows:
        return Missing("scaling", title, "psr analyse scaling")
    lines: dict[tuple[str, str], Rows] = {}
    for run, row in rows:
        lines.setdefault((joined(run_name(run, runs), row["model"]), row["method"]), []).append((run, row))
    models = list(dict.fromkeys(model for model, _ in lines))
    series = []
    for (model, method), points in lines.items():
        points.sort(key=lambda point: point[1]["generated_tokens"])
        ends = [wilson_interval(row["accuracy"], row["problems"]) for _, row in points]
        series.append(
            Series(
                model,
                tuple(float(row["generated_tokens"]) for _, row in points),
                tuple(percent(row["accuracy"]) for _, row in points),
                tuple(percent(low) for low, _ in ends),
                tuple(percent(high) for _, high in ends),
                colour=models.index(model),
                facet=METHODS.get(method, method),
                dash=DASHES.get(method, "dot"),
                notes=tuple(f"width {row['width']}" for _, row in points),
            )
        )
    sizes = sorted({row["problems"] for _, row in rows})
    caption = f"{' or '.join(map(str, sizes))} problems; every point is a width. Bars: 95% interval (Wilson)."
    x_title = "generated tokens per problem"
    return Chart("scaling", title, caption, x_title, "accuracy, %", tuple(series), log_x=True)


def distribution(runs: Sequence[Run], part: str) -> Item:
    """The embedding of the first run that has one: points of different embeddings are not comparable."""
    key, title = f"distribution-{part}", f"Data distribution: {part}s"
    run = next((run for run in runs if run.analyses["distribution"].get("points")), None)
    if run is None:
        return Missing(key, title, "psr analyse distribution")
    found = run.analyses["distribution"]
    points = [point for point in found["points"] if point["part"] == part]
    series = []
    for i, name in enumerate(dict.fromkeys(point["set"] for point in points)):
        chosen = [point for point in points if point["set"] == name]
        xs, ys = (tuple(float(point[axis]) for point in chosen) for axis in ("x", "y"))
        series.append(Series(name, xs, ys, colour=i))
    apart = ", ".join(f"{sets} {100 * value:.0f}%" for sets, value in found.get("separation", {}).get(part, {}).items())
    caption = f"t-SNE (perplexity {found['perplexity']:g}) of {found['embedding']}. " + (
        f"Told apart by their nearest neighbours (50% is mixed): {apart}." if apart else ""
    )
    name = f" {run.name}." if len(runs) > 1 else ""
    return Chart(key, title, caption + name, "", "", tuple(series), kind="point", bare=True)
