"""PRM data: a step tree gives every step the same logits as the step alone after its own prefix."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from psr.commands.data import rate
from psr.curation.prm800k import RatedStep, RatedTrajectory, rated_pairs, read_trajectories
from psr.data.prm import PRMDataModule, labelled_steps
from psr.errors import UsageError
from psr.evaluation.steps import step_baselines
from psr.files.jsonl import DataError, write_jsonl
from psr.files.tables import write_table
from psr.modules.prm import PRMModule
from psr.policy.folder import load_policy, load_trainable
from psr.prompts.prm import PRMEncoder
from psr.trees.packing import build_row

TEMPLATE = "{problem}\n"
TRAJECTORY = RatedTrajectory(
    "t",
    "3+4-5",
    (
        RatedStep((("3+4=7", 1), ("3+4=8", -1), ("3=3", 0)), 0),
        RatedStep((("7-5=1", -1), ("7-5=2", 1)), 1),
        RatedStep((("2=2", -1),), None),
    ),
)
OURS = {
    "id": "a",
    "problem": "3+4",
    "steps": [
        {"completions": [{"text": "x", "rating": -1}, {"text": "y", "rating": 1, "chosen": True}, {"text": "?"}]},
        {"completions": [{"text": "z", "rating": 0}]},
        {"completions": [{"text": "never reached", "rating": 1}]},
    ],
}
THEIRS = {
    "question": {"problem": "3+4"},
    "label": {
        "steps": [
            {
                "completions": [{"text": "x", "rating": -1}, {"text": "y", "rating": 1}, {"text": "?", "rating": None}],
                "human_completion": None,
                "chosen_completion": 1,
            },
            {"completions": [{"text": "z", "rating": 0}], "human_completion": {"text": "h"}, "chosen_completion": None},
        ]
    },
}


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerBase) -> PRMEncoder:
    return PRMEncoder(tokenizer, TEMPLATE)


@pytest.fixture
def make(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> Callable[..., PRMDataModule]:
    """The DataModule of some rows, set up."""

    def data(folder: Path, rows: list[dict], **settings: Any) -> PRMDataModule:
        write_jsonl(tmp_path / "rows.jsonl", rows)
        made = PRMDataModule(str(folder), str(tmp_path / "rows.jsonl"), template=TEMPLATE, **settings)
        made.setup("fit")
        return made

    return data


def as_row(trajectory: RatedTrajectory) -> dict:
    """The trajectory in our format."""
    steps = [
        {
            "completions": [
                {"text": t, "rating": r, "chosen": i == step.chosen} for i, (t, r) in enumerate(step.candidates)
            ]
        }
        for step in trajectory.steps
    ]
    return {"id": trajectory.id, "problem": trajectory.problem, "steps": steps}


@pytest.mark.parametrize("row_tokens", [4096, 24], ids=["one row", "many rows"])
def test_a_rows_logits_loss_and_gradient_are_those_of_the_steps_one_by_one(
    policy: Path, llama: Path, encoder: PRMEncoder, make: Callable[..., PRMDataModule], row_tokens: int
):
    """In float64, for every architecture, with "-" counting twice."""
    data = make(llama, [as_row(TRAJECTORY), {**OURS, "problem": "9"}], val_share=0.5, row_tokens=row_tokens, seed=1)
    data.train += data.heldout
    module = PRMModule(str(policy), minus_weight=2.0)
    module.policy = load_trainable(policy)
    module.double()
    plan = data.plan(data.train)
    assert (len(plan.rows) == 1) == (row_tokens == 4096)
    found, loss = [], 0.0
    for planned in plan.rows:
        row = build_row(planned)
        found += [(label, logit) for logit, label in zip(*module.rated(row), strict=True)]
        loss = loss + module.training_step(row, 0) / plan.rows_per_step
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in module.policy.parameters()]

    asked = [  # the problem, the steps up to the rated one, its label
        ("3+4-5", ("3+4=7",), 1),
        ("3+4-5", ("3+4=8",), 0),
        ("3+4-5", ("3=3",), 1),
        ("3+4-5", ("3+4=7", "7-5=1"), 0),
        ("3+4-5", ("3+4=7", "7-5=2"), 1),
        ("3+4-5", ("3+4=7", "7-5=2", "2=2"), 0),
        ("9", ("x",), 0),
        ("9", ("y",), 1),
        ("9", ("y", "z"), 1),
    ]
    model = load_policy(policy, torch.float64)
    plus, minus = encoder.labels
    alone, total = [], 0.0
    for problem, steps, label in asked:
        logits = model(torch.tensor([encoder.question(problem, steps)])).logits[0, -1]
        alone.append((label, logits[plus] - logits[minus]))
        total = total - (1 if label else 2) * torch.log_softmax(logits[[plus, minus]], -1)[1 - label]
    (total / len(asked)).backward()
    for (label, logit), (right, expected) in zip(sorted(found), sorted(alone), strict=True):
        assert label == right
        torch.testing.assert_close(logit.double(), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(loss.double(), total / len(asked), atol=1e-6, rtol=1e-6)
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-6, rtol=1e-5)


def test_neutral_ratings_become_what_is_asked_for(encoder: PRMEncoder):
    def labels(neutral: str) -> list[bool]:
        return [step.right for step in labelled_steps(TRAJECTORY, encoder, neutral)]

    assert labels("+") == [True, False, True, False, True, False]
    assert labels("-") == [True, False, False, False, True, False]
    assert labels("skip") == [True, False, False, True, False]


def test_steps_that_end_too_late_are_left_out(llama: Path, encoder: PRMEncoder, make: Callable[..., PRMDataModule]):
    rows = [{**as_row(TRAJECTORY), "problem": problem} for problem in ("3+4-5", "3+4-6")]
    whole = len(encoder.question("3+4-5", ("3+4=7", "7-5=2", "2=2")))
    [steps] = make(llama, rows, val_share=0.5, max_tokens=whole).train
    assert len(steps) == 6
    [steps] = make(llama, rows, val_share=0.5, max_tokens=whole - 1).train
    assert len(steps) == 5
    with pytest.raises(UsageError, match="max_tokens is 3"):
        make(llama, rows, val_share=0.5, max_tokens=3)


@pytest.mark.parametrize("row", [OURS, THEIRS], ids=["ours", "theirs"])
def test_both_formats_are_read(tmp_path: Path, row: dict):
    write_jsonl(tmp_path / "rows.jsonl", [row])
    [one] = read_trajectories(tmp_path / "rows.jsonl")
    assert one.problem == "3+4"
    assert one.steps[0] == RatedStep((("x", -1), ("y", 1)), 1)
    if row is THEIRS:
        assert one.steps[1] == RatedStep((("z", 0), ("h", 1)), 1), "what people wrote themselves is good, and chosen"
    else:
        assert one.steps[1:] == (RatedStep((("z", 0),), None),), "nothing follows a step that was not chosen"


def test_a_set_of_the_hub_is_read(tmp_path: Path):
    write_table(tmp_path / "set" / "train.parquet", [THEIRS])
    write_jsonl(tmp_path / "rows.jsonl", [THEIRS])
    [one] = read_trajectories(tmp_path / "set")
    assert one == read_trajectories(tmp_path / "rows.jsonl")[0]


def test_a_judged_pair_is_two_ratings_after_steps_without_one(tmp_path: Path, encoder: PRMEncoder):
    pair = {"id": "p", "problem": "3+4-5", "previous_steps": ["3+4=7"], "chosen": "7-5=2", "rejected": "7-5=3"}
    write_jsonl(tmp_path / "rows.jsonl", [pair])
    [one] = read_trajectories(tmp_path / "rows.jsonl")
    assert one.steps == (RatedStep((("3+4=7", None),), 0), RatedStep((("7-5=2", 1), ("7-5=3", -1)), None))
    assert [step.right for step in labelled_steps(one, encoder, "+")] == [True, False]


def test_a_row_of_another_shape_is_named(tmp_path: Path):
    write_jsonl(tmp_path / "rows.jsonl", [OURS, {"problem": "x", "solution": "y"}])
    with pytest.raises(DataError, match=r"rows\.jsonl, row 2: no rated trajectory"):
        read_trajectories(tmp_path / "rows.jsonl")


def test_the_verifier_rates_every_step_on_the_result_before_it(tmp_path: Path):
    solution = "a07+30=37\nb37-10=17\nc17+05=22 \\boxed{22}"
    write_jsonl(tmp_path / "ift.jsonl", [{"id": "s", "problem": "07a+30b-10c+05", "solution": solution}])
    rate(tmp_path / "ift.jsonl", tmp_path / "rated.jsonl")
    [one] = read_trajectories(tmp_path / "rated.jsonl")
    assert [step.candidates[0][1] for step in one.steps] == [1, -1, 1], "a slip, and right steps before and after it"
    assert [step.chosen for step in one.steps] == [0, 0, 0]


def test_pairs_are_the_chosen_good_step_against_every_bad_one():
    first, second = rated_pairs(TRAJECTORY)
    assert (first["previous_steps"], first["chosen"], first["rejected"]) == ([], "3+4=7", "3+4=8")
    assert (second["previous_steps"], second["chosen"], second["rejected"]) == (["3+4=7"], "7-5=2", "7-5=1")


def test_training_and_held_out_problems_are_disjoint_and_baselines_are_there(
    llama: Path, encoder: PRMEncoder, make: Callable[..., PRMDataModule]
):
    rows = [{**OURS, "id": str(i), "problem": f"{i % 5}+{i // 10}"} for i in range(20)]
    data = make(llama, rows, val_share=0.2, batch_size=9)
    assert len(data.train) + len(data.heldout) == 20 and len(data.heldout) in (2, 4)
    head = len(encoder.head("0+0"))
    problems = [{step.question[:head] for steps in part for step in steps} for part in (data.train, data.heldout)]
    assert not problems[0] & problems[1]
    assert sum(len(row.units) for row in data.train_dataloader()) == 3 * len(data.train)
    assert sum(len(row.units) for row in data.val_dataloader()) == 3 * len(data.heldout)
    assert data.baselines.always_plus == pytest.approx(2 / 3)


def test_the_length_rule_is_the_best_cut_on_the_training_steps():
    training = [(3, 1), (4, 1), (9, 0), (10, 0), (5, 1), (4, 0)]
    found = step_baselines(training, [(2, 1), (20, 0), (8, 1), (1, 1)])
    assert found.always_plus == 0.75
    assert found.length_rule == 0.75, "up to 5 is '+': right, right, wrong, right"
    assert found.balanced_length_rule == pytest.approx((2 / 3 + 1) / 2)
    same = step_baselines([(3, 1), (3, 0), (3, 1)], [(3, 1), (3, 0)])
    assert same.length_rule == 0.5
