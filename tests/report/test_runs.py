"""Run folders as the report reads them: names, groups, logs of resumed processes, settings."""

import json
import math
from pathlib import Path

import pytest
import yaml

from psr.errors import UsageError
from psr.report.markdown import build_markdown
from psr.report.plotly_figures import draw
from psr.report.runs import read_runs
from psr.report.sections import charts
from tests.report.conftest import EXCERPT, MakeRun, log_training


def test_seeds_are_a_group_and_methods_are_others(make_run: MakeRun):
    paths = [make_run("a", seed=1), make_run("b", seed=2), make_run("c", recipe="srlm"), make_run("d", recipe="srlm")]
    runs = read_runs(paths)
    assert [(run.name, run.group, run.label) for run in runs] == [
        ("a", 0, "made"),
        ("b", 0, "made"),
        ("c", 1, "srlm"),
        ("d", 1, "srlm"),
    ]


def test_runs_that_differ_in_a_setting_only_are_no_seeds_of_each_other(make_run: MakeRun):
    runs = read_runs([make_run("a", settings={"lr": 1e-5}), make_run("b", settings={"lr": 1e-4})])
    assert [run.label for run in runs] == ["lr 1e-05", "lr 0.0001"]
    assert [run.group for run in runs] == [0, 1]


def test_methods_have_their_names(make_run: MakeRun):
    ways = [("step", "pairwise"), ("response", "score"), ("step", "score")]
    folders = [make_run(f"{granularity}-{form}") for granularity, form in ways]
    for folder, (granularity, form) in zip(folders, ways, strict=True):
        path = folder / "self_rewarding" / "fit.yaml"
        settings = yaml.safe_load(path.read_text())
        settings["data"]["init_args"] |= {"search": {"granularity": granularity}, "judge": {"form": form}}
        path.write_text(yaml.safe_dump(settings))
    assert [run.label for run in read_runs(folders)] == ["PSRLM", "SRLM", "step, score"]


def test_folders_of_the_same_name_are_told_apart(make_run: MakeRun):
    assert [run.name for run in read_runs([make_run("x/run"), make_run("y/run", seed=1)])] == ["x/run", "y/run"]


def test_what_a_resumed_process_logged_again_counts_once(make_run: MakeRun):
    root = make_run()
    log_training(root, steps=[10, 20])
    assert (root / "self_rewarding" / "logs" / "version_1").is_dir()
    [run] = read_runs([root])
    assert [row["step"] for row in run.steps] == list(range(110))
    assert [row["epoch"] for row in run.steps[:30:10]] == [0, 1, 1]


def test_settings_are_flat_and_without_nulls(make_run: MakeRun):
    [run] = read_runs([make_run()])
    assert run.settings["self_rewarding"] == {
        "seed_everything": 0,
        "data.init_args.problems_per_iteration": [4, 4],
        "data.init_args.batch_size": 8,
        "model.init_args.lr": 1e-5,
    }


def test_a_folder_without_results_and_one_named_twice_are_refused(make_run: MakeRun, tmp_path: Path):
    with pytest.raises(UsageError, match=r"holds no results .*results.json"):
        read_runs([tmp_path / "nothing"])
    root = make_run()
    with pytest.raises(UsageError, match="different folders"):
        read_runs([root, root])
    with pytest.raises(UsageError, match="runs is empty"):
        read_runs([])


def test_a_real_run_is_read():
    [run] = read_runs([EXCERPT])
    assert run.numbers == [1, 2, 3, 4] and len(run.steps) > 20
    assert run.settings["self_rewarding"]["model.init_args.loss.init_args.beta"] == 1.0
    tokens = run.usage(2)["generated_tokens"]
    assert tokens is not None and tokens > 100_000


def test_figures_leave_out_what_is_no_number(make_run: MakeRun):
    """As of a training that diverged."""
    root = make_run()
    path = root / "self_rewarding" / "logs" / "version_0" / "metrics.csv"
    path.write_text(path.read_text().replace(",0.75,", ",nan,", 5).replace("-0.1", "-inf", 3))
    results = json.loads((root / "results.json").read_text())
    results["models"][1] |= {"accuracy": math.nan, "judge_accuracy": math.inf}
    (root / "results.json").write_text(json.dumps(results))
    found = read_runs([root])
    assert all(math.isfinite(value) for row in found[0].steps for value in row.values())
    drawn = charts(found)
    assert {chart.key for chart in drawn} >= {"accuracy", "judge-accuracy", "rewards"}
    assert "nan" not in build_markdown(found)
    for chart in drawn:
        draw(chart)
        assert all(y is None or math.isfinite(y) for series in chart.series for y in series.y)
