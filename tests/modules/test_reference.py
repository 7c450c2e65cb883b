"""Reference log-probabilities: those of training, computed once, and never those of something else."""

import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from psr.modules.reference import reference_logprobs
from psr.policy.folder import load_trainable
from psr.trees.packing import Row
from psr.trees.scoring import row_logprobs
from tests.trees.test_step_tree import random_pairs, row_of

CPU = torch.device("cpu")


@pytest.fixture
def policy(llama: Path) -> PreTrainedModel:
    return load_trainable(llama)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "reference.safetensors"


def rows(*seeds: int) -> list[Row]:
    return [row_of(random_pairs(random.Random(seed))) for seed in seeds]


def marked(store: Path) -> float:
    """Write into the store a value that no model computes, so that reading it can be told from computing; the value."""
    with safe_open(store, "pt") as stored:
        metadata = stored.metadata()
    save_file({"logprobs": torch.full_like(load_file(store)["logprobs"], 7.0)}, store, metadata)
    return 7.0


def equal(got: list[Tensor], expected: list[Tensor]) -> bool:
    return len(got) == len(expected) and all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_they_are_what_training_computes_and_leave_no_gradient(policy: PreTrainedModel):
    got = reference_logprobs(policy, rows(1, 2), CPU)
    expected = [row_logprobs(policy, row).detach() for row in rows(1, 2)]
    assert equal(got, expected)
    assert not any(value.requires_grad for value in got)
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_what_was_stored_is_read_back_in_the_order_of_the_rows(policy: PreTrainedModel, store: Path):
    computed = reference_logprobs(policy, rows(1, 2, 3), CPU, "32-true", store)
    assert equal(reference_logprobs(policy, rows(1, 2, 3), CPU, "32-true", store), computed)
    value = marked(store)
    again = reference_logprobs(policy, rows(1, 2, 3), CPU, "32-true", store)
    assert all(bool((one == value).all()) for one in again), "it was computed, not read"
    assert [len(one) for one in again] == [len(one) for one in computed]
    assert [path.name for path in store.parent.iterdir()] == [store.name]


@pytest.mark.parametrize("changed", ["weights", "rows", "order", "conditions"])
def test_what_was_stored_for_something_else_is_never_used(policy: PreTrainedModel, store: Path, changed: str):
    reference_logprobs(policy, rows(1, 2), CPU, "32-true", store)
    marked(store)
    conditions, asked = "32-true", rows(1, 2)
    if changed == "weights":
        with torch.no_grad():
            next(policy.parameters()).view(-1)[0] += 1e-3
    elif changed == "conditions":
        conditions = "bf16-mixed"
    else:
        asked = rows(2, 1) if changed == "order" else rows(1, 4)
    got = reference_logprobs(policy, asked, CPU, conditions, store)
    assert equal(got, [row_logprobs(policy, row).detach() for row in asked])
    assert equal(reference_logprobs(policy, asked, CPU, conditions, store), got), "and it replaces what was there"
