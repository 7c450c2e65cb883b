"""Output of the `psr analyse` commands: one JSON file and one table each."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from psr.files.jsonl import write_json
from psr.run.folder import RunFolder
from psr.run.settings import RunSettings
from psr.terminal.text import printable

JUDGE_COLUMNS = {
    **{"model": "model", "form": "form", "shots": "shots", "accuracy": "accuracy %"},
    **{"accuracy_low": "from %", "accuracy_high": "to %"},
    **{"consistency": "consistent %", "position_bias": "position bias", "length_bias": "length bias"},
    "unparsable": "unparsable %",
}
SCORING_COLUMNS = {
    **{"model": "model", "form": "form", "consistency": "consistent %", "agreement": "agree %", "tied": "tied %"},
    **{"unparsable": "unparsable %", "questions": "questions", "generated_tokens": "tokens"},
}
STEP_COLUMNS = {
    **{"model": "model", "benchmark": "benchmark", "solutions": "solutions", "steps": "steps", "steps_stderr": "± "},
    **{"step_tokens": "tokens\na step", "step_characters": "characters\na step", "solution_tokens": "tokens"},
}


def finish(
    settings: RunSettings, name: str, figures: dict[str, Any], rows: str | None, columns: dict[str, str]
) -> None:
    """Write analysis/<name>.json, and print its `rows` as a table."""
    path = RunFolder(settings.run).analysis(name)
    write_json(path, {"schema": 1, **figures})
    console = Console()
    if rows is not None:
        table = Table(*columns.values(), box=SIMPLE_HEAD)
        for row in figures[rows]:
            table.add_row(*(_cell(title, row.get(key)) for key, title in columns.items()))
        console.print(table)
    console.print(f"written to {path}")


def _cell(title: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return escape(printable(value or "-"))
    if title.endswith("%") or "bias" in title:
        return f"{100 * value:.1f}"
    return str(value) if isinstance(value, int) else f"{value:.2f}"
