"""`psr data eft --from ...`: pairs are kept or rejected by name, both orders agree, training and held-out are apart."""

import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from psr.cli.main import main, spelled
from psr.commands import eft
from psr.curation.annotated import EFTData, split_by_problem, take_judged, usable_pairs
from psr.curation.annotator.settings import Endpoint
from psr.curation.decontamination import Benchmarks
from psr.data.sft import eft_samples
from psr.errors import NoPairsError, UsageError
from psr.files.jsonl import DataError, read_jsonl, write_jsonl
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.search.prm import PRM
from psr.search.step_search import SearchSettings
from psr.search.tree_search import TreeSettings
from tests.conftest import PolicyMaker
from tests.curation.annotator.endpoint import FakeEndpoint, serving
from tests.recipes.tiny_run import ROOT
from tests.scripted import END, ScriptedEngine

PRM800K = ROOT.parent / "shared" / "data" / "prm800k_phase1_train_trajectories.jsonl.gz"
PAIRS = [
    {"id": str(i), "problem": f"{i // 2}+9", "previous_steps": ["1"], "chosen": f"{i % 7 + 2}", "rejected": "1"}
    for i in range(12)
]


def greater(prompt: str) -> str:
    """An annotator that prefers the greater digit, but is confused by 3, silent on 4 and against 5."""
    a, b = re.findall(r"^[AB] (?:Step \d+: )?(\d)$", prompt, re.MULTILINE)
    better = "A" if a > b else "B"
    if "3" in (a, b):
        better = "A"
    if "5" in (a, b):
        better = "AB"[better == "A"]
    return f"A has {a}, B has {b}." + ("" if "4" in (a, b) else f" So [[{better}]]")


@pytest.fixture
def annotator() -> Iterator[FakeEndpoint]:
    with serving(FakeEndpoint(answer=greater)) as endpoint:
        yield endpoint


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    return tmp_path / "pairs.jsonl"


def rows(path: Path) -> list[dict[str, Any]]:
    fields = ["schema", "id", "problem", "previous_steps", "chosen", "rejected", "shown"]
    return read_jsonl(path, fields, ["explanations"])


def reasons(out: Path) -> Counter[str]:
    rejects = out.with_name(f"{out.stem}.rejects.jsonl")
    return Counter(json.loads(line)["reason"] for line in rejects.read_text().splitlines())


def test_from_says_where_pairs_come_from_and_is_the_verifier_by_default():
    assert spelled(["data", "eft", "a", "--seed", "1"]) == ["data", "eft", "verifier", "a", "--seed", "1"]
    assert spelled(["data", "eft", "a", "--from", "search", "b"]) == ["data", "eft", "search", "a", "b"]
    assert spelled(["data", "eft", "--from=prm800k", "a"]) == ["data", "eft", "prm800k", "a"]
    assert spelled(["data", "ift", "--from", "a"]) == ["data", "ift", "--from", "a"]


def test_dry_run_may_stand_alone():
    assert spelled(["data", "ift", "--dry-run"]) == ["data", "ift", "--dry_run=true"]
    assert spelled(["data", "ift", "--dry-run", "--limit", "3"]) == ["data", "ift", "--dry_run=true", "--limit", "3"]
    assert spelled(["data", "ift", "--dry-run", "false"]) == ["data", "ift", "--dry_run", "false"]


def test_without_an_annotator_pairs_are_verdicts_alone(pairs: Path, tmp_path: Path):
    out = tmp_path / "eft.jsonl"
    main(["data", "eft", "--from", "prm800k", str(pairs), str(out), "--heldout", "4"])
    training, held = rows(out), rows(tmp_path / "eft.heldout.jsonl")
    assert len(training) == 8 and len(held) == 4
    assert not {row["problem"] for row in training} & {row["problem"] for row in held}
    assert Counter(row["shown"] for row in training) == {"A": 4, "B": 4}
    assert not any("explanations" in row for row in training + held)
    assert "8 training pairs on 4 problems, 4 held-out pairs on 2 others" in (tmp_path / "eft.md").read_text()


def test_an_annotator_must_agree_with_itself_and_with_the_label(
    annotator: FakeEndpoint, pairs: Path, tmp_path: Path, encoder: Encoder, prompts: Prompts
):
    out = tmp_path / "eft.jsonl"
    endpoint = Endpoint(annotator.url, "m")
    for _ in range(2):
        eft.prm800k(pairs, out, prompts, endpoint)
    assert reasons(out) == {"orders disagree": 2, "unparsable": 2, "against the label": 2}
    kept = rows(out)
    assert len(kept) == 6
    for row in kept:
        assert row["explanations"]["chosen_first"] == f"A has {row['chosen']}, B has 1. So "
        assert row["explanations"]["rejected_first"] == f"A has 1, B has {row['chosen']}. So "
    assert len(annotator.asked) == 24 and max(annotator.asked.values()) == 1
    write_jsonl(tmp_path / "one.jsonl", kept[:1])
    sample, _ = eft_samples(str(tmp_path / "one.jsonl"), encoder)
    assert encoder.text(sample.prompt_ids) in annotator.asked, "the judge is trained on what the annotator was asked"


def test_a_dry_run_asks_nothing(
    annotator: FakeEndpoint, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = ["--annotator.url", annotator.url, "--annotator.model", "m", "--dry-run"]
    main(["data", "eft", "--from", "prm800k", str(pairs), str(tmp_path / "eft.jsonl"), *options])
    assert "24 requests" in capsys.readouterr().out
    assert not annotator.asked and not (tmp_path / "eft.jsonl").exists()


def test_pairs_that_cannot_teach_are_rejected():
    data = EFTData()
    same = {**PAIRS[0], "id": "same", "chosen": "1 "}
    swapped = {**PAIRS[0], "id": "swapped", "chosen": "1", "rejected": PAIRS[0]["chosen"]}
    kept = usable_pairs([*PAIRS, same, swapped], Benchmarks.of({"quiz": ["$1 + 9$."]}), data)
    assert len(kept) == 10
    assert {row["id"]: row["reason"] for row in data.rejects} == {
        **{"2": "in a benchmark", "3": "in a benchmark"},
        **{"same": "equal steps", "swapped": "pair twice"},
    }


def test_a_verdict_without_an_explanation_is_no_explanation(prompts: Prompts):
    data = EFTData()
    take_judged(PAIRS[0], ("[[A]]", "because [[B]]"), prompts, data)
    assert [row["reason"] for row in data.rejects] == ["no explanation"]


def test_the_split_is_the_same_whatever_the_order_of_problems():
    shuffled = random.Random(1).sample(PAIRS, len(PAIRS))
    names = [{row["problem"] for row in split_by_problem(some, 4, 7)[1]} for some in (PAIRS, shuffled)]
    assert names[0] == names[1]


def test_more_held_out_than_there_is_is_an_error(pairs: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="heldout is 99, and only 12 pairs are left"):
        eft.prm800k(pairs, tmp_path / "eft.jsonl", heldout=99)
    assert not (tmp_path / "eft.jsonl").exists()


def test_nothing_left_says_why(annotator: FakeEndpoint, tmp_path: Path, prompts: Prompts):
    write_jsonl(tmp_path / "pairs.jsonl", [{**PAIRS[0], "chosen": "3"}])
    with pytest.raises(NoPairsError, match=r"no pair is left for .*: 1 orders disagree"):
        eft.prm800k(tmp_path / "pairs.jsonl", tmp_path / "eft.jsonl", prompts, Endpoint(annotator.url, "m"))


# From tree search


def digits(prompt: str, sampling: Any) -> list[str]:
    last = prompt.count("\n") >= 2
    return [f"{(i * 3 + len(prompt)) % 9 + 1}{END if last else chr(10)}" for i in range(sampling.n)]


def plus(prompt: str) -> list[float]:
    """The PRM: the greater the last digit, the better."""
    return [float(re.findall(r"\d", prompt)[-1]), 5.0]


def grown(llama: Path, encoder: Encoder, out: Path, **options: Any) -> tuple[ScriptedEngine, ScriptedEngine]:
    write_jsonl(out.parent / "problems.jsonl", [{"id": str(i), "problem": f"{i}+1"} for i in range(6)])
    policy = ScriptedEngine(encoder.tokenizer, digits)
    scorer = ScriptedEngine(encoder.tokenizer, digits, choices=plus)
    prm = PRM(llama, scorer, "{problem}\n")
    settings = TreeSettings(**{"iterations": 4, "width": 3, **options.pop("search", {})})
    eft.search(llama, out.parent / "problems.jsonl", out, policy, prm, settings, encoder.prompts, **options)
    return policy, scorer


def test_best_and_worst_by_the_prm_that_the_annotator_confirms(
    annotator: FakeEndpoint, llama: Path, encoder: Encoder, tmp_path: Path
):
    out = tmp_path / "eft.jsonl"
    grown(llama, encoder, out, annotator=Endpoint(annotator.url, "m"), margin=0.2, heldout=3)
    training, held = rows(out), rows(tmp_path / "eft.heldout.jsonl")
    assert training and held and not {row["problem"] for row in training} & {row["problem"] for row in held}
    assert all(int(row["chosen"]) > int(row["rejected"]) for row in training + held)
    assert all("explanations" in row for row in training)
    asked = len(training) + len(held) + sum(reasons(out).values())
    assert len(annotator.asked) <= 2 * asked


def test_started_again_it_searches_only_what_is_missing(llama: Path, encoder: Encoder, tmp_path: Path):
    out = tmp_path / "eft.jsonl"
    grown(llama, encoder, out)
    whole, trees = out.read_bytes(), tmp_path / "eft.trees.jsonl"
    lines = trees.read_bytes().splitlines(keepends=True)
    trees.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    policy, _ = grown(llama, encoder, out)
    assert out.read_bytes() == whole
    assert len(policy.prompts) > 0 and all(prompt[0] in "45" for prompt in policy.prompts)
    policy, _ = grown(llama, encoder, out)
    assert policy.loaded == [], "nothing is missing: no model is loaded"
    with pytest.raises(DataError, match="another model or other settings"):
        grown(llama, encoder, out, search={"width": 2})


def test_trees_of_a_model_that_was_trained_anew_are_not_taken(
    llama: Path, make_policy: PolicyMaker, encoder: Encoder, tmp_path: Path
):
    model = tmp_path / "M"
    shutil.copytree(llama, model)
    grown(model, encoder, tmp_path / "eft.jsonl")
    shutil.copytree(make_policy("llama", 1), model, dirs_exist_ok=True)
    with pytest.raises(DataError, match="another model or other settings"):
        grown(model, encoder, tmp_path / "eft.jsonl")


@pytest.mark.skipif(not PRM800K.is_file(), reason="needs PRM800K")
def test_prm800k_itself_gives_pairs(tmp_path: Path):
    out = tmp_path / "eft.jsonl"
    eft.prm800k(PRM800K, out, heldout=200)
    training, held = rows(out), rows(tmp_path / "eft.heldout.jsonl")
    assert len(training) > 2000 and len(held) >= 200
    assert not {row["problem"] for row in training} & {row["problem"] for row in held}
    assert len(read_jsonl(PRM800K, ["id"])) == 942


# From the exact verifier

RIGHT = ("a07+30=37", "b37-10=27 \\boxed{27}")


def chain_steps(prompt: str, sampling: Any) -> list[str]:
    if prompt.count("\n") == 1:
        return [RIGHT[0] + "\n", "a07+30=47\n"]
    return [RIGHT[1] + END, "b37-10=17 \\boxed{17}" + END]


def knows(prompt: str) -> str:
    a, _ = (line[2:] for line in prompt.splitlines()[-2:])
    return f"I added. [[{'A' if a in RIGHT else 'B'}]]"


@pytest.mark.parametrize("annotated", [False, True])
def test_verified_pairs_are_explained_by_the_generator_or_by_an_annotator(
    llama: Path, encoder: Encoder, tmp_path: Path, annotated: bool
):
    write_jsonl(tmp_path / "problems.jsonl", [{"id": "p", "problem": "07a+30b-10"}])
    out, engine = tmp_path / "eft.jsonl", ScriptedEngine(encoder.tokenizer, chain_steps)
    with serving(FakeEndpoint(answer=knows)) as server:
        endpoint = Endpoint(server.url, "m") if annotated else None
        settings = SearchSettings(width=2, ties="advance")
        problems = tmp_path / "problems.jsonl"
        eft.verifier(llama, problems, out, engine, settings, encoder.prompts, annotator=endpoint)
    made = read_jsonl(out, ["schema", "chosen", "rejected", "explanations"])
    assert {row["chosen"] for row in made} == set(RIGHT) and len(made) == 2
    explained = {row["explanations"]["chosen_first"] for row in made}
    assert explained == ({"I added. "} if annotated else {one for one in explained if ";" in one})


def test_started_again_the_verifier_samples_only_what_is_missing(llama: Path, encoder: Encoder, tmp_path: Path):
    problems, out = tmp_path / "problems.jsonl", tmp_path / "eft.jsonl"
    write_jsonl(problems, [{"id": str(number), "problem": "07a+30b-10"} for number in range(4)])

    def sampled(**settings: Any) -> ScriptedEngine:
        engine = ScriptedEngine(encoder.tokenizer, chain_steps)
        search = SearchSettings(width=2, ties="advance", **settings)
        eft.verifier(llama, problems, out, engine, search, encoder.prompts)
        return engine

    sampled()
    whole, journal = out.read_bytes(), tmp_path / "eft.samples.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    assert len(sampled().prompts) == 2, "the two steps of the one problem that is missing"
    assert out.read_bytes() == whole
    assert sampled().loaded == []
    with pytest.raises(DataError, match=r"eft\.samples\.jsonl was made by another model or other settings"):
        sampled(temperature=0.1)
