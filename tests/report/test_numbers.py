"""The numbers of every figure as CSV."""

import csv
from pathlib import Path

from psr.cli.main import main
from psr.report.charts import Chart, Series
from psr.report.numbers import chart_csv
from psr.report.runs import read_runs
from psr.report.sections import charts
from tests.report.conftest import MakeRun


def test_numbers_are_as_they_were_measured_and_gaps_are_empty():
    series = (
        Series("run, one", ("M1", "M2"), (100 / 3, None), (1.0, None), (2.0, None), notes=("width 4", "")),
        Series("=HYPERLINK(1)", (1.0,), (-0.5,), facet="+chosen"),
    )
    chart = Chart("key", "title", "caption", "model", "accuracy, %", series, ticks=((1.0, "M1"),))
    assert chart_csv(chart).splitlines() == [
        'series,part,model,"accuracy, %",low,high,note',
        '"run, one",,M1,33.333333333333336,1.0,2.0,width 4',
        '"run, one",,M2,,,,',
        "'=HYPERLINK(1),'+chosen,M1,-0.5,,,",
    ]


def test_the_report_writes_every_figure_with_and_without_images(measured_run: Path, tmp_path: Path):
    main(["report", str(measured_run), "--out", str(tmp_path), "--images=false"])
    drawn = charts(read_runs([measured_run]))
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {f"{chart.key}.csv" for chart in drawn}
    for chart in drawn:
        rows = list(csv.reader((tmp_path / "figures" / f"{chart.key}.csv").open(encoding="utf-8", newline="")))
        assert len(rows) == 1 + sum(len(series.x) for series in chart.series)


def test_a_run_of_another_length_is_compared_where_both_have_a_model(make_run: MakeRun):
    from psr.report.side_by_side import table

    runs = read_runs([make_run("a"), make_run("b", gain=0.1)])
    del runs[1].models[2]
    found = table(runs)
    assert found is not None and found.header == ("measure", "a", "b", "difference")
    assert [row for row in found.rows if row[0].startswith("greedy")] == [
        ("greedy accuracy, %, M1", "50.0", "50.0", "+0.0"),
        ("greedy accuracy, %, M2", "70.0", "60.0", "−10.0"),
    ]
    assert ("step pairs, M2", "4.0", "4.0", "+0.0") in found.rows
    assert table(runs[:1]) is None
