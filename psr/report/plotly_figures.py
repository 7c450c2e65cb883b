"""Draws a chart with plotly. The same figure is written as an image, sent to W&B and shown on the page.

Knows charts and the look. The page recolours it when the theme changes: every trace's `meta` has its palette slot.
"""

from typing import Any

import plotly.graph_objects as go

from psr.report.charts import Chart, Series, figure
from psr.report.look import FONT, LIGHT, Theme

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
FAINT = 0.32
LABELLED = 6
"""A single line of at most this many points has its values as labels above them."""


def draw(chart: Chart, theme: Theme = LIGHT) -> go.Figure:
    """The chart as a figure with a legend, in the colours of `theme`."""
    make = {"line": line, "bar": bar, "point": point}[chart.kind]
    drawn = go.Figure([make(chart, series, theme) for series in chart.series])
    named = len({trace.name for trace in drawn.data}) > 1
    categories = all(isinstance(x, str) for series in chart.series for x in series.x)
    drawn.update_layout(
        template="none",
        font={"family": FONT, "size": 13, "color": theme.muted},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 44, "r": 12, "t": 12, "b": 8 if categories or chart.bare else 40},
        barmode="stack",
        bargap=0.45,
        dragmode=False,
        hoverlabel={"font": {"family": FONT, "size": 13}},
        hovermode="closest" if chart.kind == "point" or chart.log_x else "x unified",
        showlegend=named,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"color": theme.text}},
    )
    hairline = {"gridcolor": theme.line, "zeroline": False, "linecolor": theme.line, "fixedrange": True}
    standoff = {"standoff": 10, "font": {"size": 12}}
    drawn.update_xaxes(**hairline, showgrid=False, title={"text": "" if categories else chart.x_title, **standoff})
    drawn.update_yaxes(**hairline, title={"text": chart.y_title, **standoff}, rangemode="tozero")
    for axis in (drawn.layout.xaxis, drawn.layout.yaxis):
        axis.automargin = True
    if chart.y_range:
        low, high = chart.y_range
        drawn.update_yaxes(range=[low - 2, high + 8], tick0=low, dtick=(high - low) / 4)
    if chart.log_x:
        ticks = [factor * 10**power for power in range(7) for factor in (1, 2, 5)]
        drawn.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks])
    if chart.ticks:
        places, names = zip(*chart.ticks, strict=True)
        drawn.update_xaxes(tickvals=places, ticktext=names, showgrid=True, range=[places[0] - 0.05, places[-1] + 0.05])
    elif categories:
        drawn.update_xaxes(type="category")
    drawn.update_layout(annotations=value_labels(chart, theme))
    if chart.bare:
        drawn.update_xaxes(visible=False)
        drawn.update_yaxes(visible=False, rangemode="normal")
    return drawn


def value_labels(chart: Chart, theme: Theme) -> list[dict[str, Any]]:
    """The values of a single short line, each above its point and its interval."""
    if chart.kind != "line" or chart.log_x or len(chart.series) > 1 or len(chart.series[0].x) > LABELLED:
        return []
    [series] = chart.series
    tops = series.high or series.y
    style = {"showarrow": False, "yanchor": "bottom", "yshift": 5, "font": {"color": theme.text, "size": 12}}
    return [
        {"x": x, "y": top, "text": f"{y:.1f}" if chart.y_range else figure(y), **style}
        for x, y, top in zip(series.x, series.y, tops, strict=True)
        if y is not None
    ]


def label(series: Series) -> str:
    return f"{series.name}, {series.facet}" if series.facet else series.name


def shared(series: Series) -> dict[str, Any]:
    """The arguments of every kind of trace: values, name, and what the page needs to colour and to hide it."""
    return {
        "x": list(series.x),
        "y": list(series.y),
        "name": label(series),
        "text": list(series.notes) or None,
        "meta": {"slot": series.colour % len(LIGHT.palette), "group": series.group},
    }


def line(chart: Chart, series: Series, theme: Theme) -> go.Scatter:
    colour = theme.palette[series.colour % len(theme.palette)]
    many = len(series.x) > 30
    bars = None
    if series.low:
        ends = list(zip(series.low, series.y, series.high, strict=True))
        bars = {
            "type": "data",
            "symmetric": False,
            "array": [None if y is None or high is None else high - y for _, y, high in ends],
            "arrayminus": [None if y is None or low is None else y - low for low, y, _ in ends],
            "color": colour,
            "thickness": 1.25,
            "width": 4,
        }
    return go.Scatter(
        **shared(series),
        mode="lines" if many else "lines+markers",
        line={"color": colour, "width": 1.25 if series.faint else 1.75 if many else 2.25, "dash": series.dash},
        marker={"color": colour, "size": 4 if series.faint else 8, "symbol": SYMBOLS[series.colour % len(SYMBOLS)]},
        opacity=FAINT if series.faint else 1,
        error_y=bars,
        showlegend=not series.faint,
        hovertemplate="%{text}: %{y:.4g}<extra>%{fullData.name}</extra>" if series.notes else "%{y:.4g}",
        connectgaps=False,
    )


def bar(chart: Chart, series: Series, theme: Theme) -> go.Bar:
    colour = theme.palette[series.colour % len(theme.palette)]
    return go.Bar(**shared(series), marker={"color": colour, "line": {"width": 0}}, hovertemplate="%{y:.4g}")


def point(chart: Chart, series: Series, theme: Theme) -> go.Scatter:
    colour = theme.palette[series.colour % len(theme.palette)]
    symbol = SYMBOLS[series.colour % len(SYMBOLS)]
    marker = {"color": colour, "size": 5, "opacity": 0.65, "symbol": symbol, "line": {"width": 0}}
    return go.Scatter(**shared(series), mode="markers", marker=marker, hoverinfo="name")
