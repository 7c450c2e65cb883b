"""What the gate has decided at the hand-overs of a run: read from the run directory, the best model, the table.

Knows `gate.json` and `results.json`. Does not know how models are compared.
"""

from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from psr.files.jsonl import read_json
from psr.run.folder import RunFolder

Action = Literal["warn", "stop", "keep"]
"""What follows where a model is worse; what is not is taken: "take"."""


def decided(run: RunFolder, before: int | None = None) -> list[dict[str, Any]]:
    """The decisions on M2, M3, ..., those below M`before` if it is given."""
    found, number = [], 2
    while run.gate(number).is_file() and (before is None or number < before):
        found.append(read_json(run.gate(number)))
        number += 1
    return found


def best_before(run: RunFolder, number: int) -> int:
    """The number of the last model before M`number` that the gate has taken."""
    return max((one["number"] for one in decided(run, number) if one["decision"] == "take"), default=1)


def best_by_gate(results: dict[str, Any]) -> str | None:
    """The last model that was taken, M1 if none was; None where there is no gate."""
    gates = [model["gate"] for model in results["models"] if "gate" in model]
    return f"M{max((g['number'] for g in gates if g['decision'] == 'take'), default=1)}" if gates else None


def best_by_accuracy(results: dict[str, Any]) -> str | None:
    """The first of the models with the highest greedy accuracy; None where none was measured."""
    measured = [model for model in results["models"] if model.get("accuracy") is not None]
    return max(measured, key=lambda model: model["accuracy"])["name"] if measured else None


def best_model(results: dict[str, Any]) -> str:
    """The result of the run: what the gate holds for best, or where there is none the last model."""
    return best_by_gate(results) or (results["models"][-1]["name"] if results["models"] else "M1")


def best_line(results: dict[str, Any]) -> str | None:
    """For instance "Best by the gate, without a label: M3; by accuracy: M3 (86.6%)"; None where there is no gate."""
    named, accurate = best_by_gate(results), best_by_accuracy(results)
    if named is None:
        return None
    line = f"Best by the gate, without a label: {named}"
    if accurate is None:
        return line
    accuracy = {model["name"]: 100 * model["accuracy"] for model in results["models"] if model["name"] == accurate}
    return f"{line}; by accuracy: {accurate} ({accuracy[accurate]:.1f}%)"


def gate_table(results: dict[str, Any]) -> Table | None:
    """One row per hand-over; None where there is no gate."""
    gates = [model["gate"] for model in results["models"] if "gate" in model]
    if not gates:
        return None
    columns = ("model", "against", "won", "lost", "share of wins", "answer", "agree", "tokens", "apart", "s", "")
    table = Table(*columns, title="the gate", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for one in gates:
        table.add_row(f"M{one['number']}", one["against"], *gate_cells(one))
    return table


def gate_cells(gate: dict[str, Any]) -> list[str]:
    """Wins, losses, share of wins, what the new model writes, seconds and the decision, as texts."""
    share, after = gate["win_share"], gate["after"]
    interval = f"{100 * gate['low']:.0f}-{100 * gate['high']:.0f}"
    agree = "-" if after["consistency"] is None else f"{100 * after['consistency']:.0f}"
    return [
        str(gate["wins"]),
        str(gate["losses"]),
        "-" if share is None else f"{100 * share:.0f} ({interval})",
        f"{100 * after['finished']:.0f}",
        agree,
        f"{after['tokens']:.0f}",
        f"{gate['distance']:.3f}",
        f"{gate['seconds']:.0f}",
        gate["decision"],
    ]
