"""The content of the report's figures and tables, apart from how they are drawn: the source of page, images, W&B and
Markdown.

Knows values and words. Does not know plotly, HTML or run folders.
"""

from dataclasses import dataclass
from typing import Literal

Dash = Literal["solid", "dot", "dash"]
Number = float | None
"""A value; None is not measured and leaves a gap."""


@dataclass(frozen=True)
class Series:
    """One line, set of bars or cloud of points.

    Args:
        name: its name in the legend of an image.
        x, y: of equal length; `x` are names or numbers.
        low, high: ends of the interval of every y, in the same unit; empty if there is none.
        colour: slot of the palette.
        group: number of the group of runs it belongs to, which the page can hide; None if it belongs to none.
        facet: what distinguishes it from another series of the same run ("chosen"), drawn as `dash`.
        faint: one run among several of a group, drawn behind the group's mean.
        notes: one text a point, shown beside its values.
    """

    name: str
    x: tuple[str | float, ...]
    y: tuple[Number, ...]
    low: tuple[Number, ...] = ()
    high: tuple[Number, ...] = ()
    colour: int = 0
    group: int | None = None
    facet: str = ""
    dash: Dash = "solid"
    faint: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """A figure.

    Args:
        key: its name in file names, anchors and W&B.
        title: what is shown, in a few words.
        caption: how it was measured and how to read it.
        x_title, y_title: the axes' titles, with units.
        series: what is drawn.
        kind: bars are stacked.
        y_range: fixed ends of the y axis, for shares.
        ticks: (position, name) on the x axis where x are numbers that stand for names.
        log_x: logarithmic x axis.
        bare: an axis without meaning of its own: no ticks, no titles (an embedding).
    """

    key: str
    title: str
    caption: str
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    kind: Literal["line", "bar", "point"] = "line"
    y_range: tuple[float, float] | None = None
    ticks: tuple[tuple[float, str], ...] = ()
    log_x: bool = False
    bare: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first column names the row, the others hold numbers as printed, or words."""

    key: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def holds_words(self, column: int) -> bool:
        """Whether a column is left-aligned, like words, and not right-aligned, like numbers."""
        return column == 0 or all(row[column][:1].isalpha() for row in self.rows)


@dataclass(frozen=True)
class Missing:
    """A figure for which the run folders have no data, and the command that measures it."""

    key: str
    title: str
    command: str


Item = Chart | Table | Missing


@dataclass(frozen=True)
class Section:
    """Items under one heading."""

    key: str
    title: str
    items: tuple[Item, ...]

    @property
    def charts(self) -> tuple[Chart, ...]:
        return tuple(item for item in self.items if isinstance(item, Chart))


def values_table(chart: Chart) -> Table:
    """The chart's values as a table: for readers who cannot see it, or want the numbers."""
    with_interval = any(series.low for series in chart.series)
    rows = []
    names = {position: name for position, name in chart.ticks}
    for series in chart.series:
        for i, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
            where = names.get(x, x) if isinstance(x, float) else x
            row = [series.name, where if isinstance(where, str) else figure(where), figure(y)]
            if with_interval:
                low, high = (ends[i] if ends else None for ends in (series.low, series.high))
                row.append("" if low is None or high is None else f"{figure(low)} to {figure(high)}")
            rows.append(tuple(row))
    header = ("series", chart.x_title or "x", chart.y_title or "y", *(["interval"] if with_interval else []))
    return Table(chart.key, chart.title, chart.caption, header, tuple(rows))


def figure(value: Number) -> str:
    """A number to three or four digits."""
    if value is None:
        return "–"
    whole = value == int(value) or abs(value) >= 1000
    text = f"{value:,.0f}" if whole else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return text.replace("-", "−")


def signed(value: float) -> str:
    """A difference to one digit, with a sign as wide as any other."""
    return f"{value:+.1f}".replace("-", "−")


def percent(share: Number) -> Number:
    return None if share is None else 100 * share
