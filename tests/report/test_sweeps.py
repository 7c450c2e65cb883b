"""The trials of a sweep in the report: best first, whatever their state, in percent."""

from pathlib import Path

from psr.report.charts import Chart, Item, Table
from psr.report.page import build_page
from psr.report.runs import read_runs
from psr.report.sections import sections
from psr.sweeps.results import best_first, read_sweeps, write_sweep
from tests.report.conftest import SWEEP, MakeRun


def swept(make_run: MakeRun, name: str = "run", maximize: bool = True) -> Path:
    folder = make_run(name)
    write_sweep(folder, "beta-and-lr", {**SWEEP, "maximize": maximize})
    return folder


def items_of(folders: list[Path]) -> tuple[Item, ...]:
    [section] = [one for one in sections(read_runs(folders)) if one.key == "sweeps"]
    return section.items


def test_the_trials_are_a_table_with_the_best_first(make_run: MakeRun):
    _, table = items_of([swept(make_run)])
    assert isinstance(table, Table)
    assert table.header == ("trial", "state", "M2", "M3", "model.lr", "loss.lr", "width")
    assert table.rows == (
        ("trial 2", "complete", "70.0", "91.2", "1e-05", "0.1", "4"),
        ("trial 0", "complete", "80.0", "90.0", "2.35e-06", "0.1", "6"),
        ("trial 1", "pruned", "60.0", "–", "5e-05", "0.1", "4"),
        ("trial 3", "fail", "–", "–", "5e-06", "0.1", "6"),
    )


def test_the_least_can_be_the_best(make_run: MakeRun):
    [results] = read_sweeps(swept(make_run, maximize=False)).values()
    assert [trial["number"] for trial in best_first(results)] == [0, 2, 1, 3]


def test_trials_are_drawn_by_iteration_and_the_best_stands_out(make_run: MakeRun):
    chart, _ = items_of([swept(make_run)])
    assert isinstance(chart, Chart)
    assert [(line.name, line.faint, line.dash) for line in chart.series] == [
        ("best trial", False, "solid"),
        ("other trials", True, "solid"),
        ("pruned trials", True, "dot"),
    ]
    assert chart.series[0].y == (70.0, 91.2) and chart.series[2].notes == ("trial 1",)


def test_sweeps_of_several_runs_are_told_apart_and_a_run_without_has_no_section(make_run: MakeRun):
    titles = [item.title for item in items_of([swept(make_run, "a"), swept(make_run, "b"), make_run("c")])]
    assert titles[1::2] == ["Sweep beta-and-lr of a", "Sweep beta-and-lr of b"]
    assert items_of([make_run("d")]) == ()
    assert 'href="#sweeps"' not in build_page(read_runs([make_run("e")]), 0)
