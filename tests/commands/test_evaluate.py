"""`psr evaluate` on tiny policies: what it writes, that it goes on where it was, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from psr.cli.main import main
from psr.curation.sources import Source
from psr.engines.local import LocalEngine
from psr.evaluation import benchmarks
from psr.files.jsonl import read_json, read_jsonl, write_jsonl
from tests.conftest import PolicyMaker
from tests.recipes.tiny_run import TINY

ROWS = [{"id": str(i), "problem": f"{i}+4", "answer": str(i + 4)} for i in range(5)]
NO_GOLD = {"id": "nameless", "problem": "1+1", "answer": ""}


@pytest.fixture
def models(make_policy: PolicyMaker, tmp_path: Path) -> list[Path]:
    """Two random policies, called M1 and M2."""
    folders = []
    for number in (1, 2):
        folders.append(tmp_path / "models" / f"M{number}")
        folders[-1].parent.mkdir(exist_ok=True)
        folders[-1].symlink_to(make_policy("llama", number))
    return folders


@pytest.fixture
def arguments(tmp_path: Path, models: list[Path]) -> list[str]:
    write_jsonl(tmp_path / "sums.jsonl", [*ROWS, NO_GOLD])
    write_jsonl(tmp_path / "more.jsonl", ROWS)
    options: dict[str, Any] = {
        "models": list(map(str, models)),
        "benchmarks": [str(tmp_path / "sums.jsonl"), str(tmp_path / "more.jsonl")],
        "out": tmp_path / "out",
        "prompts": TINY / "prompts.yaml",
        "strategy.max_tokens": 12,
        "strategy.max_step_tokens": 6,
        "strategy.max_steps": 2,
        "strategy.temperature": 1.0,
        "judge.max_tokens": 6,
    }
    written = {name: json.dumps(value) if isinstance(value, list) else value for name, value in options.items()}
    return ["evaluate", *(f"--{name}={value}" for name, value in written.items())]


def test_models_are_evaluated_compared_and_written(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture):
    main([*arguments, "--methods=[greedy,majority,step]", "--widths=[1,3]"])
    results = read_json(tmp_path / "out/evaluation.json")["results"]
    tries = [("greedy", 1), ("majority", 1), ("majority", 3), ("step", 1), ("step", 3)]
    assert [(row["model"], row["benchmark"], row["method"], row["width"]) for row in results] == [
        (model, name, *one) for model in ("M1", "M2") for name in ("sums", "more") for one in tries
    ]
    assert {(row["problems"], row["graded"]) for row in results} == {(6, 5), (5, 5)}
    assert all((row["no_gold"] == ["nameless"]) == (row["benchmark"] == "sums") for row in results)
    assert all(("average" in row) == (row["method"] == "majority") for row in results)
    graded = read_jsonl(tmp_path / "out/solutions/M1/sums/majority-3.graded.jsonl", ["id", "correct", "samples"])
    assert [row["id"] for row in graded] == [str(i) for i in range(5)] + ["nameless"]
    assert all(len(row["samples"]) == 3 for row in graded) and graded[-1]["correct"] is None
    comparisons = read_json(tmp_path / "out/comparison.json")["comparisons"]
    assert len(comparisons) == 10 and {(row["a"], row["b"]) for row in comparisons} == {("M1", "M2")}
    assert all(row["low"] <= row["difference"] <= row["high"] for row in comparisons)
    assert "no reference answer, not counted: nameless" in capsys.readouterr().out


def test_started_again_nothing_is_generated_twice(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[int] = []
    generate = LocalEngine.generate

    async def counted(self: LocalEngine, prompts: Any, *rest: Any) -> Any:
        asked.append(len(prompts))
        return await generate(self, prompts, *rest)

    monkeypatch.setattr(LocalEngine, "generate", counted)
    main([*arguments, "--limit=3"])
    first = read_json(tmp_path / "out/evaluation.json")
    assert sum(asked) == 2 * 2 * 3
    solutions = tmp_path / "out/solutions/M2/more/greedy-1.jsonl"
    solutions.write_bytes(solutions.read_bytes()[:-20])  # a kill in the middle of a line
    asked.clear()
    main([*arguments, "--limit=3"])
    assert sum(asked) == 1
    assert read_json(tmp_path / "out/evaluation.json") == first
    asked.clear()
    main(arguments)  # without the limit: the first three are there
    assert sum(asked) == 2 * (3 + 2)


def test_a_problem_that_does_not_fit_is_wrong_and_named(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
):
    long = {"id": "long", "problem": "1+" * 200 + "1", "answer": "201"}
    write_jsonl(tmp_path / "sums.jsonl", [*ROWS, long])
    main([*arguments, f"--benchmarks=[{tmp_path / 'sums.jsonl'}]", "--methods=[greedy,majority,step,best_of_n,beam]"])
    results = read_json(tmp_path / "out/evaluation.json")["results"]
    assert len(results) == 10 and all(row["too_long"] == ["long"] for row in results)
    assert all(row["graded"] == 6 and row["accuracy"] < 1 for row in results)
    assert "does not fit into the model's context, counted as wrong: long" in capsys.readouterr().out


def test_psr_test_names_what_it_does_not_count(models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    write_jsonl(tmp_path / "sums.jsonl", [*ROWS, {**NO_GOLD, "id": "name\x1b[2Jless"}])
    config = {
        "model": {
            "class_path": "SolverModule",
            "init_args": {
                "model": str(models[0]),
                "max_tokens": 8,
                "engine": {"class_path": "LocalEngine"},
            },
        },
        "data": {
            "class_path": "BenchmarkDataModule",
            "init_args": {"problems": str(tmp_path / "sums.jsonl"), "prompts": str(TINY / "prompts.yaml")},
        },
        "trainer": {"accelerator": "cpu", "logger": False, "default_root_dir": str(tmp_path)},
    }
    (tmp_path / "test.yaml").write_text(json.dumps(config))
    main(["test", "--config", str(tmp_path / "test.yaml")])
    shown = capsys.readouterr().out
    assert "name\\x1b[2Jless: no reference answer, not counted in the accuracy" in shown and "test/accuracy" in shown


def test_a_set_of_the_hub_is_read_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The columns of OlympiadBench, as `datasets` loads them, here from a folder."""
    row = {"question": "1+1?", "final_answer": ["$2$,$3$"], "unit": "km", "error": None, "is_multiple_answer": True}
    write_jsonl(tmp_path / "set" / "train.jsonl", [{"id": 7, **row}, {"id": 8, **row, "error": "1e-1"}])
    columns = {"problem": "question", "answer": "final_answer"}
    monkeypatch.setitem(benchmarks.BENCHMARKS, "olympiadbench", Source(str(tmp_path / "set"), columns=columns))
    first, second = benchmarks.read_benchmark("olympiadbench")
    assert (first.id, first.problem, first.answer, first.unit) == ("7", "1+1?", "$2$,$3$", "km")
    assert first.several and (first.tolerance, second.tolerance) == (None, 0.1)
    assert len(benchmarks.read_benchmark("olympiadbench", 1)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--benchmarks=[nowhere.jsonl]"], "no such file"),
        (["--models=[nowhere]"], "nowhere"),
        (["--models=[]"], "needs --models"),
    ],
)
def test_bad_input_is_named(arguments: list[str], options: list[str], message: str):
    with pytest.raises(SystemExit, match=message):
        main([*arguments, *options])


def test_two_benchmarks_of_one_name_are_refused(arguments: list[str], tmp_path: Path):
    (tmp_path / "again").mkdir()
    write_jsonl(tmp_path / "again/sums.jsonl", ROWS)
    both = [str(tmp_path / "sums.jsonl"), str(tmp_path / "again/sums.jsonl")]
    with pytest.raises(SystemExit, match="same name"):
        main([*arguments, f"--benchmarks={json.dumps(both)}"])
