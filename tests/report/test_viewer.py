"""The data of the search viewer: which problems, which texts, and nothing of the run changed."""

import json
from pathlib import Path

import pytest

from psr.files.jsonl import DataError
from psr.report.runs import read_runs
from psr.report.viewer import viewer_data
from tests.recipes.tiny_run import contents
from tests.report.conftest import EXCERPT, MakeRun


def test_a_search_is_shown_whole(make_run: MakeRun):
    [run] = viewer_data(read_runs([make_run()]), problems=10)["runs"]
    assert [(found["number"], found["searched"]) for found in run["iterations"]] == [(2, 4), (3, 4)]
    problem = run["iterations"][0]["problems"][0]
    assert [(node["depth"], node["event"]) for node in problem["nodes"]] == [
        (0, "rolled_back"),
        (1, "tied"),
        (0, "kept"),
        (1, "kept"),
    ]
    kept = problem["nodes"][2]
    assert (kept["chosen"], kept["rejected"], kept["margin"]) == (1, 0, 1)
    assert [judgement[:3] for judgement in kept["judgements"]] == [[0, 1, 1], [1, 0, 1], [0, 2, None]]


def test_candidates_of_the_same_text_are_one(make_run: MakeRun):
    [run] = viewer_data(read_runs([make_run()]), problems=1)["runs"]
    last = run["iterations"][0]["problems"][0]["nodes"][3]
    [candidate] = last["candidates"]
    assert candidate["sampled"] == 2 and candidate["final"]
    assert last["chosen"] == 0 and last["rejected"] is None, "where nobody won, nobody is rejected"


def test_texts_are_kept_once_and_escaped(make_run: MakeRun):
    data = viewer_data(read_runs([make_run()]), problems=4)
    assert len(set(data["texts"])) == len(data["texts"])
    joined = "".join(data["texts"])
    assert "<script" not in joined and "<img" not in joined and "&lt;/script&gt;" in joined
    assert "<mfrac>" in joined and "pens cost $5 and $10?" in joined


def test_the_sample_is_as_large_as_asked_and_the_same_every_time(make_run: MakeRun):
    root = make_run(problems=30)
    drawn = [viewer_data(read_runs([root]), problems=5) for _ in range(2)]
    assert drawn[0] == drawn[1]
    [run] = drawn[0]["runs"]
    samples = [[problem["id"] for problem in found["problems"]] for found in run["iterations"]]
    assert [len(sample) for sample in samples] == [5, 5]
    assert samples[0] == sorted(samples[0], key=lambda name: int(name.split("/")[1])) != [f"hard/{i}" for i in range(5)]
    assert samples[0] == samples[1], "of the same problems the same are drawn, so that searches can be compared"
    assert viewer_data(read_runs([root]), problems=0)["runs"][0]["iterations"][0]["problems"] == []


def test_a_line_that_is_being_written_is_left_alone(make_run: MakeRun):
    root = make_run()
    path = root / "iterations" / "03" / "traces.jsonl"
    with path.open("a") as file:
        file.write('{"problem": {"id": "half')
    before = contents(root)
    [run] = viewer_data(read_runs([root]), problems=10)["runs"]
    assert run["iterations"][1]["searched"] == 4
    assert contents(root) == before


def test_a_broken_line_is_named(make_run: MakeRun):
    root = make_run(problems=1)
    path = root / "iterations" / "02" / "traces.jsonl"
    path.write_text(json.dumps({"problem": {"id": "a"}}) + "\n")
    with pytest.raises(DataError, match=r"02/traces.jsonl, line 1: not a trajectory"):
        viewer_data(read_runs([root]), problems=1)


def test_a_run_without_traces_is_not_in_the_viewer(make_run: MakeRun):
    root = make_run()
    for path in root.glob("iterations/*/traces.jsonl"):
        path.unlink()
    assert viewer_data(read_runs([root]), problems=1) == {"runs": [], "texts": []}


def test_a_real_search_is_read():
    [run] = viewer_data(read_runs([EXCERPT]), problems=3)["runs"]
    assert [len(found["problems"]) for found in run["iterations"]] == [3, 3, 3]
    assert Path(EXCERPT, "iterations", "04", "traces.jsonl").is_file()
