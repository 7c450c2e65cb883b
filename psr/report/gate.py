"""The gate in the report: what every hand-over looked like, and what was decided.

Knows what `results.json` has of the gate. Does not know how models are compared.
"""

from collections.abc import Sequence
from typing import Any

from psr.report.by_model import SHARES, chart, per_model
from psr.report.charts import Chart, Item, Number, Table
from psr.report.runs import Run
from psr.run.gate import best_line, gate_cells


def items(runs: Sequence[Run]) -> list[Item]:
    """Nothing where no run has a gate."""
    made = [model for run in runs for model in run.models if "gate" in model]
    return [win_share(runs), hand_overs(runs)] if made else []


def win_share(runs: Sequence[Run]) -> Chart:
    caption = (
        "Of the probe problems on which the judge prefers one of the two models in both orders, the share on which it "
        "prefers the new one, with its exact interval. Where all of that lies below 50% the new model writes worse. No "
        "label is used."
    )
    series = per_model(runs, share, intervals)
    return chart("gate", "Does the new model write better?", caption, "won by the new model, %", series, SHARES)


def share(run: Run, model: dict[str, Any]) -> Number:
    found = model.get("gate", {}).get("win_share")
    return None if found is None else 100 * found


def intervals(run: Run) -> list[tuple[float, float]]:
    """(low, high) of every model of the run, in percent."""
    gates = [model.get("gate", {}) for model in run.models]
    return [(100 * gate.get("low", 0.0), 100 * gate.get("high", 1.0)) for gate in gates]


def hand_overs(runs: Sequence[Run]) -> Table:
    names = [(run.name,) if len(runs) > 1 else () for run in runs]
    rows = [
        (*name, model["name"], model["gate"]["against"], *gate_cells(model["gate"]))
        for name, run in zip(names, runs, strict=True)
        for model in run.models
        if "gate" in model
    ]
    best = [f"{run.name}: {line}" if len(runs) > 1 else line for run in runs if (line := best_line(run.results))]
    caption = (
        "Probe problems won and lost, the share won in percent with its interval; of the new model's solutions the "
        "share with an answer, the share of samples that agree with it, and the tokens of a solution; the distance of "
        f"the texts in bits (0 to 1); seconds; the decision. {'; '.join(best)}."
    )
    heads = ("won", "lost", "share won", "answer", "agree", "tokens", "apart", "s", "decision")
    return Table(
        "hand-overs",
        "Hand-overs",
        caption,
        (*(("run",) if len(runs) > 1 else ()), "model", "against", *heads),
        tuple(rows),
    )
