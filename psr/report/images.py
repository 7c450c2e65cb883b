"""Writes the figures as PNG and SVG with kaleido, which draws in a Chrome or Chromium on the machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from psr.errors import PSRError
from psr.report.charts import Chart
from psr.report.look import LIGHT
from psr.report.plotly_figures import draw

WIDTH, HEIGHT = 720, 440
FORMATS = ("svg", "png")


class NoBrowserError(PSRError, RuntimeError):
    """There is no browser to draw with."""


def write_images(charts: Sequence[Chart], folder: Path) -> list[Path]:
    """Every chart as `<key>.svg` and `<key>.png` (twice the pixels), on white. Raises NoBrowserError."""
    try:
        import kaleido
    except ImportError:
        raise NoBrowserError("kaleido is not installed: pip install 'psr[report]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        {"fig": titled(chart).to_dict(), "path": folder / f"{chart.key}.{kind}", "opts": options(kind)}
        for chart in charts
        for kind in FORMATS
    ]
    try:
        kaleido.write_fig_from_object_sync(jobs, kopts={"mathjax": False})  # which would come from the network
    except RuntimeError as error:
        raise NoBrowserError(f"no Chrome or Chromium could be started ({error})") from error
    return [folder / f"{chart.key}.{kind}" for chart in charts for kind in FORMATS]


def options(kind: str) -> dict[str, Any]:
    return {"format": kind, "width": WIDTH, "height": HEIGHT, "scale": 2 if kind == "png" else 1}


def titled(chart: Chart) -> go.Figure:
    """The figure for use on its own: with a title, and room for it and the legend."""
    drawn = draw(chart, LIGHT)
    words = {"text": chart.title, "font": {"size": 17, "color": LIGHT.text}, "x": 0.02, "y": 0.965, "yanchor": "top"}
    top = 84 if drawn.layout.showlegend else 52
    return drawn.update_layout(paper_bgcolor="white", title=words, margin={"t": top, "r": 24})
