"""The cost of the runs: time by part, tokens, throughput of the search."""

from collections.abc import Sequence
from typing import Any

from psr.report.by_model import Value, chart, per_model
from psr.report.charts import Chart, Number, Series
from psr.report.runs import Run

PARTS = {
    "search": "search",
    "reference": "reference",
    "train": "training",
    "export": "export and load",
    "gate": "gate",
    "evaluate": "evaluation",
}


def minutes(runs: Sequence[Run]) -> Chart:
    """Stacked by part: for one run by model, for several by run."""
    bars: list[tuple[str, list[dict[str, float]]]] = [(run.name, [m["seconds"] for m in run.models]) for run in runs]
    if len(runs) == 1:
        bars = [(model["name"], [model["seconds"]]) for model in runs[0].models]
    series = []
    for i, (part, name) in enumerate(PARTS.items()):
        spent = tuple(sum(seconds.get(part, 0.0) for seconds in times) / 60 for _, times in bars)
        if any(spent):
            series.append(Series(name, tuple(x for x, _ in bars), spent, colour=i))
    caption = "Wall time over all processes, with what was killed and done again. M1 counts the stages before the loop."
    where = "model" if len(runs) == 1 else "run"
    return Chart("minutes", "Time", caption, where, "minutes", tuple(series), kind="bar")


def tokens_per_second(runs: Sequence[Run]) -> Chart | None:
    caption = "Tokens decoded per second of search, candidates and verdicts together; by the model that it trained."
    series = per_model(runs, used("generated_tokens_per_second"))
    return chart("throughput", "Throughput of the search", caption, "tokens/s", series) if series else None


def generated_tokens(runs: Sequence[Run]) -> Chart | None:
    caption = "Tokens decoded by the search, the budget by which methods compare; by the model that it trained."
    series = per_model(runs, used("generated_tokens", 1e-3))
    return chart("tokens", "Generated tokens", caption, "thousand tokens", series) if series else None


def cache_hits(runs: Sequence[Run]) -> Chart | None:
    caption = "Prompt tokens of the search that were found in the engine's cache and not computed again."
    series = per_model(runs, used("cache_hit_rate", 100))
    return chart("cache-hits", "Reused prompt tokens", caption, "%", series, (0, 100)) if series else None


def used(name: str, scale: float = 1.0) -> Value:
    """The metric `name` of the search that a model was trained on."""

    def value(run: Run, model: dict[str, Any]) -> Number:
        found = run.usage(int(model["name"][1:])).get(name)
        return None if found is None else scale * found

    return value


def charts(runs: Sequence[Run]) -> list[Chart]:
    found = [minutes(runs), tokens_per_second(runs), generated_tokens(runs), cache_hits(runs)]
    return [one for one in found if one]
