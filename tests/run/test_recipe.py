"""`psr run` from random weights to M3 on the tiny recipe: what it writes, and that it does nothing twice."""

import csv
import json
import math
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from psr.files.jsonl import read_jsonl
from psr.policy.tiny_tokenizer import build_tokenizer
from psr.records import StepNode, Trajectory, step_pairs, trajectory_from_json
from psr.report.cost import PARTS
from tests.recipes.tiny_run import JUDGE, Finished, contents, finished_run, run_tiny

PROBLEMS = {2: 10, 3: 12}
BATCH = 4
FIGURES = {"accuracy", "accuracy_stderr", "judge_accuracy", "search_accuracy"}
STAGES = ("arithmetic", "split", "model", "sft", "self_rewarding", "test")


@pytest.fixture(scope="module")
def finished() -> Finished:
    return finished_run()


@pytest.fixture(scope="module")
def folder(finished: Finished) -> Path:
    return finished.folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def traces(folder: Path, number: int) -> list[Trajectory]:
    lines = (folder / "iterations" / f"{number:02d}" / "traces.jsonl").read_text().splitlines()
    return [trajectory_from_json(line) for line in lines]


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "self_rewarding" / "logs" / "version_0" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def training_steps(folder: Path, number: int) -> list[dict[str, str]]:
    return [row for row in metrics(folder) if row["train/loss"] and row["epoch"] == str(number - 2)]


def test_results_have_the_fixed_schema(results: dict[str, Any]):
    assert set(results) == {"recipe", "seed", "judge", "models"}
    assert (results["recipe"], results["seed"], results["judge"]) == ("tiny", 0, JUDGE)
    assert [model["name"] for model in results["models"]] == ["M1", "M2", "M3"]
    for model in results["models"]:
        assert {"pairs", "steps_per_solution", "step_length_tokens", "seconds"} | FIGURES <= set(model)
        assert all(isinstance(model[name], float) and 0 <= model[name] <= 1 for name in FIGURES)
        assert {"search", "train", "evaluate"} <= set(model["seconds"]) <= set(PARTS)
        assert model["name"] == "M1" or set(model["seconds"]) == {*PARTS} - {
            "gate"
        }  # for which the recipe has no probes
        assert all(seconds >= 0 for seconds in model["seconds"].values())
        assert model["steps_per_solution"] >= 1 and model["step_length_tokens"] > 1
        p = model["accuracy"]
        assert model["accuracy_stderr"] == pytest.approx(math.sqrt(p * (1 - p) / 12))


def test_time_and_pairs_are_those_of_what_made_the_model(results: dict[str, Any], folder: Path):
    first, *later = results["models"]
    assert first["pairs"] == 0 and first["seconds"]["search"] == 0 and first["seconds"]["train"] > 0
    for number, model in enumerate(later, start=2):
        assert model["pairs"] == sum(len(step_pairs(t)) for t in traces(folder, number)) > 0
        assert model["seconds"]["search"] > 0 and model["seconds"]["train"] > 0


def test_the_table_fits_a_terminal_and_shows_every_model(finished: Finished, results: dict[str, Any]):
    table = finished.stdout[finished.stdout.rindex("tiny, seed 0, judge random") :]
    for heading in ("model", "greedy", "search", "judge", "pairs", "steps", "tokens", "train", "eval"):
        assert heading in table
    assert "…" not in table
    for model in results["models"]:
        [row] = [line.split() for line in table.splitlines() if line.split()[:1] == [model["name"]]]
        assert row[1] == f"{100 * model['accuracy']:.1f}" and row[5] == str(model["pairs"])


def test_it_ends_with_the_report_and_what_to_try_next(finished: Finished, folder: Path):
    end = finished.stdout[finished.stdout.rindex("written to") :]
    assert f"{folder}/report/report.html" in end and (folder / "report" / "report.html").is_file()
    for words in ("psr solve --model run/models/M3", "psr report run", "psr analyse all run"):
        assert words in end
    assert not (folder / "progress.json").exists()


def test_a_log_without_a_terminal_is_a_page_that_reads_well(finished: Finished):
    for text in (finished.stdout, finished.stderr):
        assert "\r" not in text and "\x1b" not in text
        assert not [
            word for word in ("Loading weights", "deprecated", "wandb:", "Tip:", "site-packages") if word in text
        ]
    assert len((finished.stdout + finished.stderr).splitlines()) < 60
    said = [line[9:].partition(":")[0] for line in finished.stdout.splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]
    assert said[:4] == ["training, steps", "M1 searches", "M1 solves", "M1 searches held-out"]
    assert "training, epoch 2 of 2, batches" in said and said[-1] == "greedy"


def test_every_model_is_a_folder_of_its_own_that_transformers_loads(folder: Path):
    text = "07+30=37\n37-10=27 \\boxed{27}"
    weights = []
    for number in (0, 1, 2, 3):
        tokenizer = AutoTokenizer.from_pretrained(folder / "models" / f"M{number}")
        assert tokenizer.encode(text) == build_tokenizer().encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
        policy = AutoModelForCausalLM.from_pretrained(folder / "models" / f"M{number}")
        weights.append(torch.cat([p.detach().float().flatten() for p in policy.parameters()]))
        assert weights[-1].isfinite().all()
    for before, after in pairwise(weights):
        assert not torch.equal(before, after)
    assert not list(folder.rglob("*.partial"))


def beats(node: StepNode, one: str, other: str) -> bool:
    """Whether the candidate text `one` was named the winner over `other` in both orders."""
    texts = [candidate.text for candidate in node.candidates]
    asked = [j for j in node.judgements if {texts[j.first], texts[j.second]} == {one, other}]
    assert len(asked) == 2 and {texts[j.first] for j in asked} == {one, other}
    return all(j.winner is not None and texts[j.winner] == one for j in asked)


def all_nodes(folder: Path) -> Iterator[StepNode]:
    for number in PROBLEMS:
        for trajectory in traces(folder, number):
            yield from trajectory.nodes


def test_scores_are_counted_wins_and_every_pair_is_best_against_worst(folder: Path):
    events = set()
    for node in all_nodes(folder):
        events.add(node.event)
        texts = [candidate.text for candidate in node.candidates]
        wins = [sum(beats(node, one, other) for other in texts if other != one) for one in texts]
        assert list(node.scores) == wins
        if node.event == "tied":
            assert len(set(wins)) <= 1
        else:
            assert wins[node.chosen] == max(wins) > min(wins) == wins[node.rejected]
    assert events == {"kept", "rolled_back", "tied"}


def test_a_tie_takes_the_step_before_it_back(folder: Path):
    for number in PROBLEMS:
        for trajectory in traces(folder, number):
            solution: list[int] = []
            for i, node in enumerate(trajectory.nodes):
                assert node.depth == len(solution)
                if node.event != "tied":
                    solution.append(i)
                elif solution:
                    assert trajectory.nodes[solution.pop()].event == "rolled_back"
            assert [trajectory.nodes[i] for i in solution] == list(trajectory.kept)
            finals = [node.candidates[node.chosen].final for node in trajectory.kept]
            assert not any(finals[:-1]) and trajectory.finished == (finals[-1:] == [True])


def test_every_iteration_is_searched_by_the_model_before_on_new_problems(folder: Path):
    files = [folder / "data" / f"{name}.jsonl" for name in ("ift", "eft", "test")]
    seen = {row["problem"] for file in files for row in read_jsonl(file, ["problem"])}
    for number, count in PROBLEMS.items():
        searched = traces(folder, number)
        assert {trajectory.weights_version for trajectory in searched} == {f"M{number - 1}"}
        problems = {trajectory.problem.problem for trajectory in searched}
        assert len(searched) == len(problems) == count
        assert problems.isdisjoint(seen)
        seen |= problems


def test_no_answer_is_in_what_the_loop_reads(folder: Path):
    for line in (folder / "data" / "problems.jsonl").read_text().splitlines():
        assert set(json.loads(line)) == {"id", "problem"}


def test_the_csv_log_has_every_step_of_dpo_and_every_evaluation(folder: Path, results: dict[str, Any]):
    for number, model in zip((2, 3), results["models"][1:], strict=True):
        steps = training_steps(folder, number)
        assert len(steps) == math.ceil(model["pairs"] / BATCH)
        for row in steps:
            figures = {name: float(row[f"train/{name}"]) for name in ("margin", "reward_chosen", "reward_rejected")}
            assert figures["margin"] == pytest.approx(figures["reward_chosen"] - figures["reward_rejected"], abs=1e-5)
            assert float(row["train/logprob_chosen"]) < 0 and 0 <= float(row["train/accuracy"]) <= 1
    evaluated = [row for row in metrics(folder) if row["eval/accuracy"]]
    assert [int(float(row["iteration"])) for row in evaluated] == [1, 2, 3]
    assert [float(row["eval/accuracy"]) for row in evaluated] == [model["accuracy"] for model in results["models"]]
    assert [row["search/pairs"] for row in evaluated] == ["", *(str(model["pairs"]) for model in results["models"][1:])]


@pytest.mark.parametrize("number", PROBLEMS)
def test_the_reference_is_the_policy_at_the_start_of_the_iteration(folder: Path, number: int):
    first, *later = training_steps(folder, number)
    assert float(first["train/margin"]) == pytest.approx(0, abs=1e-6)
    assert float(first["train/loss"]) == pytest.approx(math.log(2), abs=1e-6)
    assert max(abs(float(row["train/margin"])) for row in later) > 1e-4


def test_the_reference_may_stay_the_initial_policy(folder: Path, tmp_path: Path):
    """Then the second iteration starts with a margin: M2 is compared with M1."""
    again = tmp_path / "run"
    shutil.copytree(folder, again, ignore=shutil.ignore_patterns("self_rewarding", "test", "run.json"))
    done = json.loads((again / "stages.json").read_text())
    (again / "stages.json").write_text(json.dumps({name: done[name] for name in STAGES[:4]}))
    assert run_tiny(again, "--overlay", "initial").code == 0
    assert float(training_steps(again, 2)[0]["train/margin"]) == pytest.approx(0, abs=1e-6)
    assert abs(float(training_steps(again, 3)[0]["train/margin"])) > 1e-4


def offline_run(folder: Path) -> Path:
    [path] = (folder / "self_rewarding" / "wandb").glob("offline-run-*")
    return path


def test_wandb_keeps_a_table_of_search_steps_offline(folder: Path):
    tables = sorted((offline_run(folder) / "files" / "media" / "table" / "search").glob("*.table.json"))
    assert len(tables) == len(PROBLEMS)
    for path in tables:
        table = json.loads(path.read_text())
        assert {"problem", "candidate", "score", "judgements"} <= set(table["columns"])
        assert table["data"]
    written = {row[0] for path in tables for row in json.loads(path.read_text())["data"]}
    assert written <= {t.problem.problem for number in PROBLEMS for t in traces(folder, number)}


def test_wandb_keeps_the_figures_of_the_report_offline(folder: Path):
    drawn = {path.name.partition("_")[0] for path in (offline_run(folder) / "files").glob("media/plotly/report/*.json")}
    assert {"accuracy", "judge-accuracy", "pairs", "roll-backs", "margin", "rewards", "minutes"} <= drawn


def test_wandb_keeps_the_whole_config_and_the_metrics_offline(folder: Path):
    [path] = offline_run(folder).glob("*.wandb")
    written = path.read_bytes()  # protocol buffers one after the other, not compressed
    for text in (
        "problems_per_iteration",
        "psr.modules.losses.StepDPOLoss",
        "train/margin",
        "eval/accuracy",
        "search/pairs",
    ):
        assert text.encode() in written, text


def test_the_config_of_every_fit_stands_beside_its_logs(folder: Path):
    assert "export_to: models/M1" in (folder / "sft" / "fit.yaml").read_text()
    assert "problems_per_iteration" in (folder / "self_rewarding" / "fit.yaml").read_text()


def test_the_test_stage_agrees_with_the_loop_about_the_last_model(folder: Path, results: dict[str, Any]):
    with (folder / "test" / "logs" / "version_0" / "metrics.csv").open() as file:
        [row] = csv.DictReader(file)
    assert float(row["test/accuracy"]) == pytest.approx(results["models"][-1]["accuracy"])


def test_started_again_it_runs_no_stage_and_leaves_every_file_as_it_is(finished: Finished):
    before = contents(finished.folder)
    again = run_tiny(finished.folder)
    assert again.code == 0
    for stage in STAGES:
        assert f"{stage}: done before" in again.stdout
    assert "M3" in again.stdout[again.stdout.rindex("tiny, seed 0, judge random") :]
    assert contents(finished.folder) == before
