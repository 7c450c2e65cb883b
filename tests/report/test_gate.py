"""The gate in the report: every hand-over with its interval, and no section where there is no gate."""

from pathlib import Path
from typing import Any

import pytest

from psr.report import gate
from psr.report.charts import Chart, Table
from psr.report.markdown import build_markdown
from psr.report.runs import read_runs
from psr.report.sections import sections
from psr.run.folder import RunFolder
from psr.run.results import update_model
from tests.report.conftest import MakeRun


def found(number: int, wins: int, losses: int, decision: str) -> dict[str, Any]:
    writes = {"finished": 1.0, "consistency": None, "tokens": 43.0}
    share = {"win_share": wins / (wins + losses) if wins + losses else None, "low": 0.0, "high": 0.9}
    figures = {"number": number, "against": "M1", "judge": "M1", "decision": decision, "wins": wins, "losses": losses}
    return {**figures, **share, "before": writes, "after": writes, "distance": 0.25, "seconds": 3.0}


@pytest.fixture
def gated(make_run: MakeRun) -> Path:
    folder = make_run()
    for number, wins, decision in ((2, 30, "take"), (3, 10, "stop")):
        update_model(RunFolder(folder).results, {"name": f"M{number}", "gate": found(number, wins, 30, decision)})
    return folder


def test_every_hand_over_is_shown_with_its_interval(gated: Path):
    chart, table = gate.items(read_runs([gated]))
    assert isinstance(chart, Chart) and isinstance(table, Table)
    [line] = chart.series
    assert (line.x, line.y, line.low, line.high) == (("M2", "M3"), (50.0, 25.0), (0.0, 0.0), (90.0, 90.0))
    assert [row[:5] for row in table.rows] == [
        ("M2", "M1", "30", "30", "50 (0-90)"),
        ("M3", "M1", "10", "30", "25 (0-90)"),
    ]
    assert [row[-1] for row in table.rows] == ["take", "stop"]
    assert "Best by the gate, without a label: M2; by accuracy: M3 (90.0%)" in table.caption
    assert "Hand-overs" in build_markdown(read_runs([gated]))


def test_several_runs_are_told_apart(gated: Path, make_run: MakeRun):
    _, table = gate.items(read_runs([gated, make_run("other")]))
    assert isinstance(table, Table)
    assert {row[0] for row in table.rows} == {"run"}, "the one without a gate has no row"


def test_there_is_no_section_without_a_gate(make_run: MakeRun):
    [section] = [one for one in sections(read_runs([make_run()])) if one.key == "gate"]
    assert not section.items
