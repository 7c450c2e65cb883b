"""Two runs side by side: what each reached at every model that both have, and the difference."""

from collections.abc import Sequence

from psr.report.by_model import Value, searched, share
from psr.report.charts import Number, Table, signed
from psr.report.runs import Run

MEASURES: dict[str, Value] = {
    "greedy accuracy, %": share("accuracy"),
    "accuracy with search, %": share("search_accuracy"),
    "judge accuracy, %": share("judge_accuracy"),
    "step pairs": searched("pairs"),
    "rolled back": searched("rolled_back"),
    "steps per solution": lambda run, model: model.get("steps_per_solution"),
    "tokens per step": lambda run, model: model.get("step_length_tokens"),
    "minutes": lambda run, model: sum(model["seconds"].values()) / 60,
}


def table(runs: Sequence[Run]) -> Table | None:
    """A row a measure and model; None unless there are two runs that share a model."""
    if len(runs) != 2:
        return None
    one, other = runs
    theirs = {model["name"]: model for model in other.models}
    rows = []
    for name, value in MEASURES.items():
        for model in one.models:
            if model["name"] not in theirs:
                continue
            a, b = value(one, model), value(other, theirs[model["name"]])
            if a is not None or b is not None:
                gap = "–" if a is None or b is None else signed(b - a)
                rows.append((f"{name}, {model['name']}", shown(a), shown(b), gap))
    caption = "Differences are the second minus the first; whether one is more than chance, `psr evaluate` says."
    header = ("measure", one.name, other.name, "difference")
    return Table("side-by-side", "Side by side", caption, header, tuple(rows)) if rows else None


def shown(value: Number) -> str:
    return "–" if value is None else f"{value:,.1f}".removesuffix(".0") if value >= 1000 else f"{value:.1f}"
