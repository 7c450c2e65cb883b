"""Data cards: contents and provenance of a data set, as Markdown. Knows rows and counts, no schema."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from psr.files.whole import write_text


def lengths(name: str, values: Sequence[int]) -> dict[str, str]:
    """A row of the table of lengths."""
    if not values:
        return {"what": name, "mean": "-", "median": "-", "least": "-", "most": "-"}
    figures = {"mean": f"{mean(values):.1f}", "median": f"{median(values):g}"}
    return {"what": name, **figures, "least": str(min(values)), "most": str(max(values))}


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """A Markdown table with the columns of the first row; empty if there are no rows."""
    rows = list(rows)
    if not rows:
        return ""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def counted(name: str, values: Iterable[str]) -> list[dict[str, Any]]:
    """Rows (name, rows) of a table of counts, the largest first."""
    return [{name: value, "rows": count} for value, count in Counter(values).most_common()]


def write_card(path: str | Path, title: str, sections: Mapping[str, str]) -> None:
    """Write the card; sections without text are left out."""
    parts = [f"# {title}", *(f"## {name}\n\n{text}" for name, text in sections.items() if text)]
    write_text(path, "\n\n".join(parts) + "\n")
