"""`results.json`: one entry per model, in order, whatever was written when."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from psr.run.results import has_model, put_model, read_results, results_table, start_results


def entry(number: int, **figures: Any) -> dict[str, Any]:
    return {"name": f"M{number}", "accuracy": number / 20, "seconds": {"search": 1.0, "train": 2.0}, **figures}


def text(results: dict[str, Any]) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=200)
    console.print(results_table(results))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return [line.replace("│", " ").replace("┃", " ").split() for line in lines]


def test_models_are_kept_in_their_order_and_replaced_by_name(tmp_path: Path):
    path = tmp_path / "results.json"
    for number in (10, 2, 1):
        put_model(path, entry(number))
    put_model(path, entry(2, accuracy=0.9))
    models = read_results(path)["models"]
    assert [model["name"] for model in models] == ["M1", "M2", "M10"]
    assert [model["accuracy"] for model in models] == [0.05, 0.9, 0.5]
    assert has_model(path, "M2") and not has_model(path, "M3")


def test_starting_again_keeps_the_models_that_are_there(tmp_path: Path):
    path = tmp_path / "results.json"
    assert read_results(path) == {"models": []}
    start_results(path, "quickstart", 1, "self")
    put_model(path, entry(1))
    start_results(path, "quickstart", 1, "self")
    put_model(path, entry(2))
    results = read_results(path)
    assert (results["recipe"], results["seed"], results["judge"]) == ("quickstart", 1, "self")
    assert [model["name"] for model in results["models"]] == ["M1", "M2"]


def test_the_table_shows_shares_in_percent_and_gaps_as_dashes(tmp_path: Path):
    path = tmp_path / "results.json"
    start_results(path, "quickstart", 7, "self")
    put_model(
        path,
        entry(1, accuracy=0.625, accuracy_low=0.582, accuracy_high=0.666, no_box=0.25, judge_accuracy=1.0, pairs=0),
    )
    put_model(path, entry(2, search_accuracy=None, pairs=1234, steps_per_solution=3.456, step_length_tokens=12))
    lines = text(read_results(path))
    assert "quickstart," in lines[0] and "7," in lines[0]
    first = next(line for line in lines if "M1" in line)
    second = next(line for line in lines if "M2" in line)
    assert first == ["M1", "62.5", "58-67", "-", "100.0", "0", "25", "-", "-", "1", "2", "-"]
    assert second == ["M2", "10.0", "-", "-", "-", "1234", "-", "3.46", "12", "1", "2", "-"]
