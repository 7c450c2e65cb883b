"""Assembles the report as one self-contained HTML file: no server, no network, no other file.

Scripts, styles, figures and traces are inside; large parts are compressed and unpacked by the browser. A content
security policy forbids the page to fetch anything.
"""

import base64
import gzip
import json
from collections.abc import Sequence
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from psr.report import by_model, settings
from psr.report.charts import Chart, Missing, Table, figure, signed, values_table
from psr.report.look import DARK, FONT, LIGHT, css_variables
from psr.report.plotly_figures import draw, label
from psr.report.runs import Run
from psr.report.sections import sections
from psr.report.viewer import viewer_data

KINDS = {Chart: "chart", Table: "table", Missing: "missing"}


def build_page(runs: Sequence[Run], problems: int) -> str:
    """The report as HTML; the search viewer has `problems` problems of every iteration."""
    environment = Environment(
        loader=PackageLoader("psr.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made = [section for section in sections(runs) if section.items]
    charts = [chart for section in made for chart in section.charts]
    traces = viewer_data(runs, problems)
    return environment.get_template("report.html").render(
        title=page_title(runs),
        date=date.today().isoformat(),
        runs=runs,
        groups=[(number, members) for number, members in by_model.groups(runs)],
        headline=headline(runs[0]) if len(runs) == 1 else [],
        sections=made,
        has_traces=bool(traces["runs"]),
        key_settings=settings.key_table(runs),
        differences=settings.differences(runs),
        all_settings=[
            (run.name, stage, [(name, settings.written(value)) for name, value in values.items()])
            for run in runs
            for stage, values in run.settings.items()
        ],
        kind=lambda item: KINDS[type(item)],
        values_table=values_table,
        legend=legend,
        slots=len(LIGHT.palette),
        style=Markup(style()),
        scripts=[Markup(asset(name)) for name in ("unpack.js", "theme.js", "figures.js", "tree.js", "viewer.js")],
        packed={
            "plotly": packed_plotly(),
            "figures": packed(json.dumps({chart.key: figure_json(chart) for chart in charts})),
            "traces": packed(json.dumps(traces)),
        },
    )


def page_title(runs: Sequence[Run]) -> str:
    recipes = dict.fromkeys(str(run.results.get("recipe", run.name)) for run in runs)
    return " and ".join(recipes) if len(recipes) < 4 else f"{len(runs)} runs"


def headline(run: Run) -> list[tuple[str, str, str]]:
    """(what, value, note) from the first to the last model of a single run."""
    first, last = run.models[0], run.models[-1]
    span = f"{first['name']} to {last['name']}"
    tiles = [
        (name, first.get(field), last.get(field))
        for name, field in (
            ("greedy accuracy", "accuracy"),
            ("with self-judged search", "search_accuracy"),
            ("judge accuracy", "judge_accuracy"),
        )
    ]
    found = [
        (name, f"{100 * end:.1f} %", f"{span}: {signed(100 * (end - start))} points")
        for name, start, end in tiles
        if start is not None and end is not None
    ]
    pairs = sum(model["pairs"] for model in run.models)
    problems = sum(model["search"].get("problems", 0) for model in run.models)
    seconds = sum(sum(model["seconds"].values()) for model in run.models)
    return [
        *found,
        ("step pairs", f"{pairs:,}", f"from {problems:,} searched problems"),
        ("minutes", figure(round(seconds / 60, 1)), "training, search and evaluation"),
    ]


def legend(chart: Chart) -> list[tuple[str, int | None, str]]:
    """(name, slot or None, dash) of what the bar of runs does not explain: parts, or facets of every run."""
    if any(series.group is not None for series in chart.series):
        facets = {series.facet: series.dash for series in chart.series if series.facet}
        return [(facet, None, dash) for facet, dash in facets.items()]
    parts: list[tuple[str, int | None, str]] = [(label(one), one.colour, one.dash) for one in chart.series]
    return list(dict.fromkeys(parts)) if len(parts) > 1 else []


def figure_json(chart: Chart) -> dict[str, Any]:
    """The figure for the page, which has a legend and a unit of its own."""
    return json.loads(draw(chart).update_layout(showlegend=False).update_yaxes(title="").to_json())


def style() -> str:
    """The style sheet, with the colours of both themes."""
    light, dark = css_variables(LIGHT), css_variables(DARK)
    return (
        f":root {{ color-scheme: light; --font: {FONT}; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ color-scheme: dark; {dark} }} }}\n"
        f":root[data-theme=dark] {{ color-scheme: dark; {dark} }}\n" + asset("report.css")
    )


def asset(name: str) -> str:
    return (files("psr.report") / "page" / name).read_text(encoding="utf-8")


@cache
def packed_plotly() -> str:
    return packed(get_plotlyjs())


def packed(text: str) -> str:
    """Compressed and in base64: small, and no content can close the HTML element around it."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
