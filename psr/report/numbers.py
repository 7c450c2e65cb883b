"""The numbers of a figure as CSV, as they were measured: for a plot of one's own, or a check.

Knows charts and files. Where the figure has names on its axis, so has the file.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from psr.report.charts import Chart

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would compute. Names of runs are other people's."""


def chart_csv(chart: Chart) -> str:
    """A row a point: series, part (what tells series of one run apart), x, y, the interval's ends, and the note.

    The header has the axes' titles. What was not measured is empty.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = dict(chart.ticks)
    writer.writerow(("series", "part", chart.x_title or "x", chart.y_title or "y", "low", "high", "note"))
    for series in chart.series:
        for i, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
            where = names.get(x, x) if isinstance(x, float) else x
            low, high = (ends[i] if ends else None for ends in (series.low, series.high))
            note = series.notes[i] if series.notes else ""
            cells = (series.name, series.facet, where, y, low, high, note)
            writer.writerow([text(cell) if isinstance(cell, str) else cell for cell in cells])
    return out.getvalue()


def text(cell: str) -> str:
    """The cell as words, whatever it begins with."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def write_numbers(charts: Sequence[Chart], folder: Path) -> list[Path]:
    """Every chart as `<key>.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{chart.key}.csv" for chart in charts]
    for path, chart in zip(paths, charts, strict=True):
        path.write_text(chart_csv(chart), encoding="utf-8")
    return paths
