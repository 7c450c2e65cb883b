"""What the figures and tables say, from made runs whose numbers can be worked out."""

from pathlib import Path
from typing import Any

import pytest

from psr.report import analyses, by_model, cost, training
from psr.report.charts import Chart, Missing, Table, figure, signed, values_table
from psr.report.plotly_figures import draw
from psr.report.runs import read_runs
from psr.report.sections import charts, sections
from tests.report.conftest import EXCERPT, MakeRun


def test_a_single_run_has_wilson_intervals_that_do_not_vanish_at_the_end(make_run: MakeRun):
    [line] = by_model.accuracy(read_runs([make_run(gain=0.25)])).series
    assert line.x == ("M1", "M2", "M3") and line.y == (50.0, 75.0, 100.0)
    assert (line.low[0], line.high[0]) == pytest.approx((40.383, 59.617), abs=1e-3)  # 50 of 100
    assert (line.low[2], line.high[2]) == pytest.approx((96.301, 100.0), abs=1e-3)  # 100 of 100: n / (n + z²)


def test_several_seeds_have_a_mean_with_its_standard_error(make_run: MakeRun):
    runs = read_runs(
        [make_run("a", seed=0), make_run("b", seed=2), make_run("c", seed=4), make_run("d", recipe="srlm")]
    )
    lines = by_model.accuracy(runs).series
    assert [(line.name, line.faint, line.group) for line in lines] == [
        ("a", True, 0),
        ("b", True, 0),
        ("c", True, 0),
        ("made, mean of 3", False, 0),
        ("srlm", False, 1),
    ]
    mean = lines[3]
    assert mean.y[0] == pytest.approx(52.0)
    assert mean.high[0] == pytest.approx(52.0 + 2 / 3**0.5) and not lines[0].low
    table = by_model.results(runs)
    assert table.rows[3] == ("made", "mean", "52.0 ± 1.2", "72.0 ± 1.2", "92.0 ± 1.2", "+40.0")
    assert table.rows[4][:3] == ("srlm", "0", "50.0 (40.4–59.6)")


def test_roll_backs_are_shares_of_the_expansions(make_run: MakeRun):
    runs = read_runs([make_run()])
    rolled, tied = by_model.roll_backs(runs).series
    assert rolled.x == ("M2", "M3") and rolled.y == (25.0, 25.0) and tied.y == (25.0, 25.0)
    assert by_model.pairs(runs).series[0].y == (4, 4)
    assert by_model.details(runs[0]).rows[1][7:10] == ("4", "4", "28")


def test_training_is_drawn_in_parts_and_breaks_where_an_iteration_begins(make_run: MakeRun):
    [chart] = [one for one in training.charts(read_runs([make_run()])) if one.key == "margin"]
    [line] = chart.series
    assert line.y[10] is None and line.x[10] == 2.0
    assert line.y[:3] == (0, 1, 2) and line.y[9] == 9, "ten steps are drawn one by one"
    second = line.y[11:]
    assert len(second) == training.PARTS and second[0] == 1 + (0 + 1 + 2) / 3
    assert all(2 < x < 3 for x in line.x[11:]), "the second iteration lies between M2 and M3"  # type: ignore[operator]
    assert chart.ticks == ((1.0, "M1"), (2.0, "M2"), (3.0, "M3"))


def test_training_of_several_seeds_is_their_mean(make_run: MakeRun):
    [chart] = [
        one
        for one in training.charts(read_runs([make_run("a"), make_run("b", seed=1), make_run("c", recipe="srlm")]))
        if one.key == "rewards"
    ]
    assert [(line.name, line.facet, line.dash) for line in chart.series] == [
        ("made", "chosen", "solid"),
        ("made", "rejected", "dot"),
        ("srlm", "chosen", "solid"),
        ("srlm", "rejected", "dot"),
    ]
    assert "Mean over the seeds" in chart.caption


def test_cost_counts_minutes_and_tokens(make_run: MakeRun):
    runs = read_runs([make_run()])
    found = {chart.key: chart for chart in cost.charts(runs)}
    spent = {series.name: series.y for series in found["minutes"].series}
    assert (spent["search"], spent["training"]) == ((pytest.approx(1 / 6),) * 3, (1.0,) * 3)
    assert found["throughput"].series[0].y == (200.0, 200.0)
    assert found["cache-hits"].series[0].y == (25.0, 25.0)
    assert found["tokens"].series[0].y == (2.0, 2.0)


def test_analyses_that_were_not_made_name_the_command_that_makes_them(make_run: MakeRun):
    runs = read_runs([make_run()])
    missing = [item for section in sections(runs) for item in section.items if isinstance(item, Missing)]
    assert [(item.key, item.command) for item in missing] == [
        ("benchmarks", "psr evaluate"),
        ("comparisons", "psr evaluate"),
        ("judges", "psr analyse judge"),
        ("scoring", "psr analyse scoring"),
        ("step-histogram", "psr analyse steps"),
        ("scaling", "psr analyse scaling"),
        ("distribution-prompt", "psr analyse distribution"),
        ("distribution-response", "psr analyse distribution"),
    ]


def test_analyses_that_were_made_are_shown(measured_run: Path):
    runs = read_runs([measured_run])
    items: dict[str, Any] = {item.key: item for section in sections(runs) for item in section.items}
    assert not [item for item in items.values() if isinstance(item, Missing)]
    assert items["benchmarks"].rows[:3] == (
        ("M1", "greedy", "65.0 (43.3–81.9)", "25.0"),
        ("M1", "majority 4", "65.0 (43.3–81.9)", "25.0"),
        ("M1", "average of 4", "60.0 (38.7–78.1)", "–"),
    )
    assert items["comparisons"].rows == (("M1 to M2", "test", "greedy", "20", "−5.0", "−20.0 to +10.0"),)
    assert items["judges"].rows == (("M0", "pairwise, 3-shot", "50.0 (29.9–70.1)", "40.0", "12.5", "–", "30.0"),)
    assert items["scoring"].rows[0][-1] == "12,345"
    assert items["step-histogram"].series[0].x == (3.0, 4.0, 12.0)
    assert items["step-histogram"].series[0].y == (20.0, 60.0, 20.0)
    step_search = items["scaling"].series[1]
    assert (step_search.name, step_search.facet, step_search.x) == ("M1", "step search", (40.0, 80.0, 160.0))
    assert step_search.notes == ("width 1", "width 2", "width 4")
    assert "94%" in items["distribution-prompt"].caption and len(items["distribution-prompt"].series) == 3


def test_several_runs_are_named_in_the_analyses(make_run: MakeRun, measured_run: Path):
    table = analyses.judges(read_runs([measured_run, make_run("plain", recipe="srlm")]))
    assert isinstance(table, Table) and table.rows[0][0] == "made M0"


def test_every_figure_can_be_drawn_and_names_its_colour_and_group(measured_run: Path, make_run: MakeRun):
    for runs in (read_runs([measured_run]), read_runs([EXCERPT]), read_runs([measured_run, make_run("b", seed=3)])):
        for chart in charts(runs):
            drawn = draw(chart)
            assert len(drawn.data) == len(chart.series)
            for trace, series in zip(drawn.data, chart.series, strict=True):
                assert trace.meta == {"slot": series.colour % 6, "group": series.group}
                assert list(trace.y) == list(series.y)
            assert drawn.layout.showlegend == (len({trace.name for trace in drawn.data}) > 1)


def test_keys_are_file_names_and_unique(measured_run: Path):
    keys = [item.key for section in sections(read_runs([measured_run])) for item in section.items]
    assert len(set(keys)) == len(keys)
    assert all(key.replace("-", "").isalnum() for key in keys)


def test_the_values_of_a_chart_can_be_read(make_run: MakeRun):
    runs = read_runs([make_run(gain=0.25)])
    table = values_table(by_model.accuracy(runs))
    assert table.header == ("series", "model", "greedy accuracy, %", "interval")
    assert table.rows[0] == ("made", "M1", "50", "40.4 to 59.6")
    margins = values_table(training.charts(runs)[0])
    assert margins.rows[10] == ("made", "M2", "–"), "positions that are models are named"
    assert isinstance(by_model.accuracy(runs), Chart)


def test_numbers_are_written_short_and_with_a_true_minus():
    written = [figure(value) for value in (None, 0.0, 0.12345, -0.5, 12.34, 100.0, 1234.5, 0.00001)]
    assert written == ["–", "0", "0.123", "−0.5", "12.3", "100", "1,234", "1e−05"]
    assert [signed(value) for value in (1.25, -25.61)] == ["+1.2", "−25.6"]
