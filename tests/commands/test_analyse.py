"""`psr analyse` on a finished tiny run: every table's figures are there, and agree with what the run holds."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from psr.cli.main import main
from psr.errors import UsageError
from psr.evaluation.distribution import distribution, separability
from psr.evaluation.run_texts import texts_of
from psr.files.jsonl import read_json, read_jsonl
from psr.run.settings import read_run_settings
from tests.recipes.tiny_run import finished_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny recipe's run, to write into."""
    return Path(shutil.copytree(finished_run().folder, tmp_path_factory.mktemp("analyse") / "run"))


def figures(run: Path, name: str) -> dict[str, Any]:
    return read_json(run / "analysis" / f"{name}.json")


def test_a_runs_settings_are_read_back(run: Path):
    settings = read_run_settings(run)
    assert list(settings.models()) == ["M0", "M1", "M2", "M3"]
    assert settings.judge.kind == "random" and settings.prompts.step_marker == ""
    assert settings.problems.is_file() and all(path.is_file() for path in (*settings.judge_pairs, *settings.eft))
    with pytest.raises(UsageError, match="no such file"):
        read_run_settings(run / "models")


def test_judges_are_measured_and_m0_is_shown_what_fits(run: Path):
    main(["analyse", "judge", str(run), "--limit=3"])
    found = figures(run, "judge")
    assert found["pairs"] == 3 and [row["model"] for row in found["judges"]] == ["M0", "M1", "M2", "M3"]
    assert found["judges"][0]["shots"] < 3  # its context has no room for three
    for row in found["judges"]:
        assert 0 <= row["accuracy"] <= 1 and {"position_bias", "length_bias", "consistency", "unparsable"} <= set(row)


def test_steps_and_scaling_come_from_the_same_solutions(run: Path):
    main(["analyse", "steps", str(run), "--limit=4"])
    rows = figures(run, "steps")["models"]
    assert [row["model"] for row in rows] == ["M1", "M2", "M3"]
    compared = figures(run, "comparison")["comparisons"]
    assert [(row["a"], row["b"], row["problems"]) for row in compared] == [("M1", "M2", 4), ("M1", "M3", 4)]
    for row in rows:
        assert sum(row["histogram"].values()) == row["solutions"] <= 4
    greedy = run / "analysis/solutions/M2/test/greedy-1.jsonl"
    before = greedy.stat().st_mtime_ns
    main(["analyse", "scaling", str(run), "--limit=4", "--models=[M1,M2]", "--widths=[1,2]", "--methods=[greedy,step]"])
    points = figures(run, "scaling")["points"]
    assert [(row["model"], row["method"], row["width"]) for row in points] == [
        (model, *one) for model in ("M1", "M2") for one in (("greedy", 1), ("step", 1), ("step", 2))
    ]
    assert greedy.stat().st_mtime_ns == before
    assert all(row["generated_tokens"] > 0 for row in points)


def test_two_results_are_compared(run: Path, capsys: pytest.CaptureFixture):
    main(["analyse", "steps", str(run), "--limit=4"])
    paths = [str(run / f"analysis/solutions/{model}/test/greedy-1.graded.jsonl") for model in ("M1", "M2")]
    main(["analyse", "compare", *paths])
    assert "(95%)" in capsys.readouterr().out


def test_what_a_run_cannot_show_is_said(run: Path):
    with pytest.raises(SystemExit, match="not been trained on scores"):
        main(["analyse", "scoring", str(run)])
    with pytest.raises(SystemExit, match="the run has M0, M1, M2, M3"):
        main(["analyse", "judge", str(run), "--models=[M9]"])


def test_the_texts_are_those_that_made_the_models(run: Path):
    settings = read_run_settings(run)
    texts = texts_of(settings, 5, random.Random(0))
    ift = {row["solution"] for row in read_jsonl(settings.ift[0], ["solution"])}
    assert set(texts["response"]["IFT"]) <= ift and len(texts["response"]["IFT"]) == 5
    assert all(text.endswith("]]") for text in texts["response"]["EFT"])
    assert all(prompt.endswith("\n") for prompt in texts["prompt"]["PPD"])
    assert {part: {name: len(some) for name, some in sets.items()} for part, sets in texts.items()} == {
        part: {"IFT": 5, "EFT": 5, "PPD": 5} for part in ("prompt", "response")
    }


def test_sets_that_lie_apart_are_told_apart():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(60, 8)), rng.normal(size=(40, 8))
    shift = np.eye(8)[0] * 30
    assert separability((a + shift).astype(np.float32), (b - shift).astype(np.float32)) == 1
    assert 0.3 < separability(a.astype(np.float32), b.astype(np.float32)) < 0.7
    same = np.ones((20, 8), dtype=np.float32)
    assert separability(same, same) < 0.75  # equal texts are no evidence of anything


@pytest.mark.parametrize("embedding", ["wordllama", "policy"])
def test_texts_are_placed_in_the_plane(run: Path, embedding: str):
    pytest.importorskip("openTSNE")
    if embedding == "wordllama":
        pytest.importorskip("wordllama")
    name = str(run / "models" / "M1") if embedding == "policy" else embedding
    texts = texts_of(read_run_settings(run), 12, random.Random(0))
    found = distribution(texts, name, 30.0, 0)
    assert len(found["points"]) == sum(len(some) for sets in texts.values() for some in sets.values())
    assert {(one["set"], one["part"]) for one in found["points"]} == {
        (name, part) for name in ("IFT", "EFT", "PPD") for part in ("prompt", "response")
    }
    assert all(np.isfinite([one["x"], one["y"]]).all() for one in found["points"])
    assert found["separation"]["response"]["IFT-EFT"] > 0.8
    assert distribution(texts, name, 30.0, 0) == found
