"""PRM data: a packed trajectory gives every step the same logits as the step alone after its own prefix."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from psr.commands.data import rate
from psr.data.jsonl import DataError, write_jsonl
from psr.data.prm import UNLABELLED, PRMDataModule, collate_packed, pack
from psr.data.prm800k import RatedStep, RatedTrajectory, rated_pairs, read_trajectories
from psr.data.tables import write_table
from psr.errors import UsageError
from psr.evaluation.steps import step_baselines
from psr.modules.policy import load_policy
from psr.modules.prm import PRMModule
from psr.prm_encoding import PRMEncoder

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


@torch.no_grad()
def test_packed_equals_one_by_one(policy: Path, encoder: PRMEncoder):
    """For every architecture, and beside a longer row, whose padding must change nothing."""
    module = PRMModule(str(policy))
    module.configure_model()
    short = RatedTrajectory("s", "3", (RatedStep((("3=3", 1),), 0),))
    packed = [pack(one, encoder, "+", 96) for one in (TRAJECTORY, short)]
    logits, labels = module(collate_packed([one for one in packed if one is not None]))
    asked = [  # in the order of the tokens: chosen steps, then the others
        (("3+4=7",), 1),
        (("3+4=7", "7-5=2"), 1),
        (("3+4=8",), 0),
        (("3=3",), 1),
        (("3+4=7", "7-5=1"), 0),
        (("3+4=7", "7-5=2", "2=2"), 0),
    ]
    model = load_policy(policy)
    plus, minus = encoder.labels
    for (steps, label), logit, packed_label in zip(asked, logits, labels, strict=False):
        alone = model(torch.tensor([encoder.question("3+4-5", steps)])).logits[0, -1]
        torch.testing.assert_close(logit, alone[plus] - alone[minus], atol=1e-4, rtol=1e-4)
        assert packed_label == label
    assert len(labels) == len(asked) + 1


def test_neutral_ratings_become_what_is_asked_for(encoder: PRMEncoder):
    def labels(neutral: str) -> list[int]:
        packed = pack(TRAJECTORY, encoder, neutral, 96)
        assert packed is not None
        return [label for _, label in packed.rated]

    assert labels("+") == [1, 1, 0, 1, 0, 0]
    assert labels("-") == [1, 1, 0, 0, 0, 0]
    assert labels("skip") == [1, 1, 0, 0, 0]


def test_what_does_not_fit_is_left_out(encoder: PRMEncoder):
    whole = pack(TRAJECTORY, encoder, "+", 96)
    assert whole is not None and len(whole.rated) == 6
    some = pack(TRAJECTORY, encoder, "+", len(whole) - 1)
    assert some is not None and len(some.rated) == 5
    assert pack(TRAJECTORY, encoder, "+", 10) is None


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
    packed = pack(one, encoder, "+", 96)
    assert packed is not None and [label for _, label in packed.rated] == [1, 0]


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


def test_training_and_held_out_problems_are_disjoint_and_baselines_are_there(tmp_path: Path, llama: Path):
    rows = [{**OURS, "id": str(i), "problem": f"{i % 5}+{i // 10}"} for i in range(20)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    data = PRMDataModule(str(llama), str(tmp_path / "rows.jsonl"), val_share=0.2, batch_size=3, template=TEMPLATE)
    data.setup("fit")
    assert len(data.train) + len(data.heldout) == 20 and len(data.heldout) in (2, 4)
    head = len(data.encoder.head("0+0"))
    assert not {one.ids[:head] for one in data.train} & {one.ids[:head] for one in data.heldout}
    assert sum(len(batch["input_ids"]) for batch in data.train_dataloader()) == len(data.train)
    assert (next(iter(data.val_dataloader()))["labels"] != UNLABELLED).sum() == 3 * min(3, len(data.heldout))
    assert data.baselines.always_plus == pytest.approx(2 / 3)
    with pytest.raises(UsageError, match="max_tokens is 3"):
        PRMDataModule(str(llama), str(tmp_path / "rows.jsonl"), max_tokens=3).setup("fit")


def test_the_length_rule_is_the_best_cut_on_the_training_steps():
    training = [(3, 1), (4, 1), (9, 0), (10, 0), (5, 1), (4, 0)]
    found = step_baselines(training, [(2, 1), (20, 0), (8, 1), (1, 1)])
    assert found.always_plus == 0.75
    assert found.length_rule == 0.75, "up to 5 is '+': right, right, wrong, right"
    assert found.balanced_length_rule == pytest.approx((2 / 3 + 1) / 2)
    same = step_baselines([(3, 1), (3, 0), (3, 1)], [(3, 1), (3, 0)])
    assert same.length_rule == 0.5
