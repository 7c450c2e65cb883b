"""benchmarks/eft.py on a tiny model: the filters are counted right, and what it trains is trained and asked."""

import shutil
from dataclasses import asdict
from pathlib import Path

from eft import filters, judged, kinds_table, trained_judge, trained_prm
from eft_kinds import by_kind, shares
from psr.files.jsonl import write_jsonl
from psr.records import Problem
from psr.search.tree_search import Layer, SearchedTree
from tests.recipes.tiny_run import ROOT

PROBLEM = "27a+36b-20"
RECIPE = ROOT / "tests/recipes/tiny"


def pair(chosen: str, rejected: str) -> dict:
    return {"id": "0", "problem": PROBLEM, "previous_steps": [], "chosen": chosen, "rejected": rejected}


def test_every_filter_is_counted_and_the_verifier_looks_on(tmp_path: Path):
    layers = (
        Layer((), ("a27+36=63", "a27+36=53"), (0.9, 0.2)),
        Layer((), ("a27+36=53", "a27+36=63"), (0.8, 0.3)),
        Layer((), ("a27+36=63", "a27+36=53"), (0.5, 0.45)),
        Layer((), ("a27+36=63",), (0.9,)),
    )
    write_jsonl(tmp_path / "problems.jsonl", [{"id": "p", "problem": PROBLEM}])
    write_jsonl(tmp_path / "search.trees.jsonl", [asdict(SearchedTree(Problem("p", PROBLEM), layers, "M0"))])
    write_jsonl(tmp_path / "search.rejects.jsonl", [{**pair("a27+36=53", "a27+36=63"), "reason": "against the label"}])
    write_jsonl(tmp_path / "search.jsonl", [pair("a27+36=63", "a27+36=53")])
    assert filters(tmp_path, 0.1) == {
        "problems": 1,
        "layers": 4,
        "layers_of_several": 3,
        "proposed": {"pairs": 2, "right_over_wrong": 1, "wrong_over_right": 1, "both_alike": 0},
        "against the label": {"pairs": 1, "right_over_wrong": 0, "wrong_over_right": 1, "both_alike": 0},
        "kept": {"pairs": 1, "right_over_wrong": 1, "wrong_over_right": 0, "both_alike": 0},
    }


def test_pairs_are_of_kinds():
    more, less = pair("a27+36=63", "a27+36=73"), pair("b63-20=43", "b63-20=33")
    other = pair("a27+36=63", "a27-36=09")
    assert by_kind([more, less, other, more]) == {
        "+, rejected says more": [more, more],
        "-, rejected says less": [less],
        "other": [other],
    }
    found = shares([more, less, other, more])
    assert found == {"+, rejected says more": 0.5, "-, rejected says less": 0.25, "other": 0.25}
    assert kinds_table({"heldout": found, "search": {}}, {"M0": dict.fromkeys(found, 1.0)}).row_count == 3


def test_it_trains_the_prm_and_a_judge_and_asks_it(llama: Path, tmp_path: Path):
    shutil.copytree(llama, tmp_path / "models/M0-ift")
    solution = "a27+36=63\nb63-20=43 \\boxed{43}"
    rows = [{"id": str(i), "problem": PROBLEM.replace("20", f"{i}0"), "solution": solution} for i in range(1, 7)]
    write_jsonl(tmp_path / "data/ift.jsonl", rows)
    prm = trained_prm(tmp_path, tmp_path, epochs=1)
    assert 0 <= prm["accuracy"] <= 1 and {"always_plus", "length_rule", "auroc"} <= set(prm)
    pairs = [pair("a27+36=63", "a27+36=53")]
    write_jsonl(tmp_path / "search.jsonl", pairs)
    folder = trained_judge("search", tmp_path, tmp_path, RECIPE, steps=2)
    assert judged(folder, pairs, RECIPE)["judge_accuracy"] in (0, 0.5, 1)
