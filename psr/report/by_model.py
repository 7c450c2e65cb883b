"""Figures with M1, M2, ... on the x axis: accuracy, judge, steps, pairs and roll-backs, as `results.json` has them."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from psr.evaluation.statistics import wilson_interval
from psr.report.charts import Chart, Number, Series, Table, percent, signed
from psr.report.runs import Run

Value = Callable[[Run, dict[str, Any]], Number]
"""(run, a model's entry in its results.json) -> the value that is drawn."""

SHARES = (0.0, 100.0)
MEANS = "With several seeds the thick line is their mean ± its standard error and the thin ones are the seeds. "


def share(name: str) -> Value:
    """The field `name` of a model, in percent."""
    return lambda run, model: percent(model.get(name))


def searched(name: str, scale: float = 1.0) -> Value:
    """The field `name` of the search that a model was trained on; M1 has none."""

    def value(run: Run, model: dict[str, Any]) -> Number:
        found = model["search"].get(name)
        return None if found is None else scale * found

    return value


def groups(runs: Sequence[Run]) -> Iterator[tuple[int, list[Run]]]:
    for number in sorted({run.group for run in runs}):
        yield number, [run for run in runs if run.group == number]


def per_model(
    runs: Sequence[Run],
    value: Value,
    interval: Callable[[Run], list[tuple[float, float]]] | None = None,
    **style: Any,
) -> tuple[Series, ...]:
    """A series for every run, and a mean for every group of several; models without a value are left out.

    `interval` gives (low, high) for each of a run's models; it is drawn for runs that are not in a group of several.
    """
    series = []
    for number, members in groups(runs):
        alone = len(members) == 1
        for run in members:
            points = [(model["name"], value(run, model)) for model in run.models]
            kept = [i for i, (_, y) in enumerate(points) if y is not None]
            ends = interval(run) if alone and interval else []
            series.append(
                Series(
                    run.label if alone else run.name,
                    tuple(points[i][0] for i in kept),
                    tuple(points[i][1] for i in kept),
                    tuple(ends[i][0] for i in kept) if ends else (),
                    tuple(ends[i][1] for i in kept) if ends else (),
                    colour=number,
                    group=number,
                    faint=not alone,
                    **style,
                )
            )
        if not alone:
            series.append(mean_series(members, value, **style))
    return tuple(one for one in series if one.x)


def mean_series(members: Sequence[Run], value: Value, **style: Any) -> Series:
    """The mean over a group's runs ± its standard error, at the models that all of them have."""
    columns: dict[str, list[float]] = {}
    for run in members:
        for model in run.models:
            y = value(run, model)
            if y is not None:
                columns.setdefault(model["name"], []).append(y)
    whole = {name: ys for name, ys in columns.items() if len(ys) == len(members)}
    means = [statistics.mean(ys) for ys in whole.values()]
    errors = [statistics.stdev(ys) / len(ys) ** 0.5 for ys in whole.values()]
    return Series(
        f"{members[0].label}, mean of {len(members)}",
        tuple(whole),
        tuple(means),
        tuple(mean - error for mean, error in zip(means, errors, strict=True)),
        tuple(mean + error for mean, error in zip(means, errors, strict=True)),
        colour=members[0].group,
        group=members[0].group,
        **style,
    )


def graded_problems(run: Run) -> int | None:
    """The number of problems that the accuracies were measured on: p (1 - p) / stderr²; None if all are 0 or 1."""
    found = [(m["accuracy"], m["accuracy_stderr"]) for m in run.models]
    sizes = [share * (1 - share) / error**2 for share, error in found if share is not None and error]
    return round(max(sizes)) if sizes else None


def accuracy_intervals(run: Run) -> list[tuple[float, float]]:
    """Wilson's 95% interval of the greedy accuracy of every model, in percent; empty if it cannot be computed.

    That of a model whose accuracy was not measured is (0, 0), and not drawn.
    """
    problems = graded_problems(run)
    if problems is None:
        return []
    measured = [model["accuracy"] for model in run.models]
    ends = [(0.0, 0.0) if share is None else wilson_interval(share, problems) for share in measured]
    return [(100 * low, 100 * high) for low, high in ends]


def chart(
    key: str,
    title: str,
    caption: str,
    y_title: str,
    series: tuple[Series, ...],
    y_range: tuple[float, float] | None = None,
    **more: Any,
) -> Chart:
    return Chart(key, title, caption, "model", y_title, series, y_range=y_range, **more)


def accuracy(runs: Sequence[Run]) -> Chart:
    sizes = sorted({size for run in runs if (size := graded_problems(run))})
    on = f" on {' or '.join(map(str, sizes))} held-out problems" if sizes else ""
    caption = f"Greedy solutions{on}, one sample each. Bars: 95% interval (Wilson). {MEANS if seeds(runs) else ''}"
    series = per_model(runs, share("accuracy"), accuracy_intervals)
    return chart("accuracy", "Accuracy by iteration", caption, "greedy accuracy, %", series, SHARES)


def search_accuracy(runs: Sequence[Run]) -> Chart:
    caption = "The same problems, or the first of them, solved by step search with the model as its own judge."
    series = per_model(runs, share("search_accuracy"))
    return chart("search-accuracy", "Accuracy with self-judged search", caption, "accuracy, %", series, SHARES)


def judge_accuracy(runs: Sequence[Run]) -> Chart:
    caption = "Verdicts on held-out step pairs, each asked in both orders; a coin toss is right half of the time."
    series = per_model(runs, share("judge_accuracy"))
    return chart("judge-accuracy", "Judge accuracy by iteration", caption, "right verdicts, %", series, SHARES)


def judge_consistency(runs: Sequence[Run]) -> Chart:
    caption = "Held-out pairs whose two verdicts, one in each order, name the same step."
    series = per_model(runs, share("judge_consistency"))
    return chart("judge-consistency", "Same verdict in both orders", caption, "consistent pairs, %", series, SHARES)


def judge_position_bias(runs: Sequence[Run]) -> Chart:
    caption = "Verdicts for the step that is shown first, beyond the half that is due to it: 0 is unbiased."
    series = per_model(runs, share("judge_position_bias"))
    return chart("judge-position-bias", "Position bias of the judge", caption, "percentage points", series)


def steps_per_solution(runs: Sequence[Run]) -> Chart:
    caption = "Mean over the greedy solutions of the held-out problems that came to an end."
    series = per_model(runs, lambda run, model: model.get("steps_per_solution"))
    return chart("steps-per-solution", "Steps in a solution", caption, "steps", series)


def step_length(runs: Sequence[Run]) -> Chart:
    caption = "Mean over the steps of the same solutions."
    series = per_model(runs, lambda run, model: model.get("step_length_tokens"))
    return chart("step-length", "Length of a step", caption, "tokens", series)


def pairs(runs: Sequence[Run]) -> Chart:
    caption = "Chosen and rejected steps from the search, by the model that was trained on them."
    series = per_model(runs, lambda run, model: model["pairs"] if model["search"] else None)
    return chart("pairs", "Step pairs", caption, "pairs", series)


def roll_backs(runs: Sequence[Run]) -> Chart:
    """As shares of the expansions, so that iterations of different size are comparable."""

    def of_expansions(name: str) -> Value:
        def value(run: Run, model: dict[str, Any]) -> Number:
            found = model["search"]
            return 100 * found[name] / found["expansions"] if found.get("expansions") else None

        return value

    caption = (
        "Share of the expanded steps that a later tie discarded (solid) and at which nobody won, so that the search "
        "went back a step (dotted); by the model that the search trained."
    )
    series = per_model(runs, of_expansions("rolled_back"), facet="rolled back")
    series += per_model(runs, of_expansions("tied"), facet="tied", dash="dot")
    return chart("roll-backs", "Roll-backs and ties", caption, "expansions, %", series)


def agreement(runs: Sequence[Run]) -> Chart:
    caption = "Pairs of candidates whose two verdicts name the same winner during the search: only these count."
    series = per_model(runs, searched("orders_agree", 100))
    return chart("search-agreement", "Verdicts that count", caption, "agreeing pairs, %", series, SHARES)


def distinct(runs: Sequence[Run]) -> Chart:
    caption = "Different texts among the candidates of one expansion: where it nears 1 there is nothing to judge."
    series = per_model(runs, searched("distinct_candidates"))
    return chart("distinct-candidates", "Distinct candidates", caption, "candidates", series)


def seeds(runs: Sequence[Run]) -> bool:
    """Whether some group holds several runs."""
    return any(len(members) > 1 for _, members in groups(runs))


def results(runs: Sequence[Run]) -> Table:
    """Greedy accuracy of every run and the mean of every group of several, as for a paper."""
    names = list(dict.fromkeys(model["name"] for run in runs for model in run.models))
    rows = []
    for _, members in groups(runs):
        for run in members:
            measured = [m for m in run.models if m["accuracy"] is not None]
            cells = {m["name"]: f"{100 * m['accuracy']:.1f} ± {100 * m['accuracy_stderr']:.1f}" for m in measured}
            gain = signed(100 * (measured[-1]["accuracy"] - measured[0]["accuracy"])) if measured else "–"
            seed = str(run.results.get("seed", "–"))
            rows.append((run.label, seed, *(cells.get(name, "–") for name in names), gain))
        if len(members) > 1:
            mean = mean_series(members, share("accuracy"))
            values = zip(mean.x, mean.y, mean.high, strict=True)
            cells = {str(x): f"{y:.1f} ± {high - y:.1f}" for x, y, high in values if y is not None and high is not None}
            ends = [y for y in (mean.y[0], mean.y[-1]) if y is not None] if mean.y else []
            gain_cell = signed(ends[-1] - ends[0]) if ends else "–"
            rows.append((members[0].label, "mean", *(cells.get(name, "–") for name in names), gain_cell))
    caption = "Greedy accuracy in percent ± standard error: of a run over its problems, of a mean over its seeds."
    return Table("results", "Results", caption, ("run", "seed", *names, "gain"), tuple(rows))


def details(run: Run, title: str = "Every model") -> Table:
    """All results of every model of one run."""
    columns = {
        "greedy": share("accuracy"),
        "search": share("search_accuracy"),
        "judge": share("judge_accuracy"),
        "steps": lambda run, model: model.get("steps_per_solution"),
        "tokens/step": lambda run, model: model.get("step_length_tokens"),
    }
    rows = []
    for model in run.models:
        values = [value(run, model) for value in columns.values()]
        cells = ["–" if value is None else f"{value:.1f}" for value in values]
        made = model["search"]
        counts = [f"{made[name]:,}" if name in made else "–" for name in ("pairs", "rolled_back", "verdicts")]
        minutes = sum(model["seconds"].values()) / 60
        rows.append((model["name"], *cells, *counts, f"{minutes:.1f}"))
    header = ("model", *columns, "pairs", "rolled back", "verdicts", "minutes")
    caption = "Accuracies in percent. Pairs, roll-backs and verdicts are of the search that made the model."
    return Table("details", title, caption, header, tuple(rows))
