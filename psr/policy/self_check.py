"""Whether what is trained is the model: a numerical check of a loaded policy, before anything is trained.

A model that psr would compute wrongly trains another model, and every figure looks well. So a small tree with branches
is scored by the code that trains and, sequence by sequence, by the model's own forward pass. No list of names decides.
The same tree tells whether an export is what was trained. Knows models, trees and packed rows. Does not know losses,
Lightning or engines.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from psr.policy.context import context_of
from psr.policy.folder import load_policy
from psr.policy.masks import UnsupportedModel, attention_windows
from psr.policy.reading import one_line
from psr.policy.tokenizer import PolicyError
from psr.trees.attention import NAME
from psr.trees.packing import GroupTree, PlannedRow, Row, Unit, build_row
from psr.trees.scoring import row_logprobs
from psr.trees.step_tree import Sample

TRUNK, BRANCH = 2, 3
"""Tokens of the tree: what a model of 1.5 billion parameters computes on two CPU cores in less than two seconds."""
LONGEST_BRANCH = 40
"""Branches are longer where that brings a sliding window into play."""
EXACT, ROUNDED = 2e-3, 0.15
"""Differences of log-probabilities that rounding explains: the largest in float32, the median in 16 bits."""
WRONG = (LookupError, TypeError, ValueError, RuntimeError, AttributeError, AssertionError, StopIteration)
"""What a model raises that is called in a way that it does not know."""

Score = Callable[[PreTrainedModel, Row], Tensor]
Run = Callable[[Row, Score], Tensor]
"""Calls a score with the policy and a row as training does, which is how sharded weights are gathered."""


def check_policy(policy: PreTrainedModel, folder: str | Path, run: Run, dtype: torch.dtype) -> float:
    """Raise UnsupportedModel where what is trained is not the model of `folder`; else how far they differ.

    `dtype` is the one in which `run` computes.
    """
    cannot = f"psr cannot train the {policy.config.model_type} in {folder}"
    try:
        samples = small_tree(policy, layer_windows(policy, run))
        row = tree_row(samples, policy.device)
        with torch.no_grad():
            ours, own = run(row, row_logprobs), run(row, lambda policy, _: own_logprobs(policy, samples))
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{cannot}: {error}") from error
    except WRONG as error:
        raise UnsupportedModel(f"{cannot}: {one_line(error)}") from error
    found = difference(ours, own, dtype)
    if not close(found, dtype):
        raise UnsupportedModel(f"{cannot}: log-probabilities in a step tree differ from the model's own by {found:.2g}")
    return found


def check_written(policy: PreTrainedModel, folder: Path) -> float:
    """`check_export` of a policy that is whole in this process: transformers loads what was written.

    In the policy's own type, which is that of a frozen base: adapters on bfloat16 or 4 bits are written in bfloat16.
    """
    written = load_policy(folder, policy.dtype)
    return check_export(
        policy, folder, lambda row, score: score(policy, row), policy.dtype, partial(own_logprobs, written)
    )


def check_export(
    policy: PreTrainedModel, folder: Path, run: Run, dtype: torch.dtype, read_back: Callable[[list[Sample]], Tensor]
) -> float:
    """Raise PolicyError where what is in `folder` is not what was trained; else how far they differ.

    `read_back` scores the samples of a tree with the exported model. A folder that is refused is moved aside, so that
    nobody goes on from it.
    """
    samples = small_tree(policy, layer_windows(policy, run))
    with torch.no_grad():
        ours, theirs = run(tree_row(samples, policy.device), row_logprobs), read_back(samples)
    found = difference(ours, theirs, dtype)
    if not close(found, dtype):
        aside = folder.with_name(folder.name + ".refused")
        folder.rename(aside)
        raise PolicyError(
            f"the exported model does not compute what was trained (log-probabilities differ by {found:.2g}): it is in "
            f"{aside}, and nothing goes on from it"
        )
    return found


def difference(ours: Tensor, own: Tensor, dtype: torch.dtype) -> float:
    """How far log-probabilities computed in this type differ: at most, or in 16 bits typically (routers may flip)."""
    found = (ours.cpu().double() - own.cpu().double()).abs()
    return float(found.median() if dtype.itemsize < 4 else found.max())


def close(found: float, dtype: torch.dtype) -> bool:
    """Whether rounding explains a `difference`; NaN is explained by nothing."""
    return found <= (ROUNDED if dtype.itemsize < 4 else EXACT)


def layer_windows(policy: PreTrainedModel, run: Run) -> list[int | None]:
    """The sliding window of every layer, None where it sees the whole context. Raises UnsupportedModel."""
    found: list[int | None] = []

    def listen(policy: PreTrainedModel, row: Row) -> Tensor:
        try:
            found.extend(attention_windows(policy, context_of(policy.config)))
        finally:
            policy.set_attn_implementation(NAME)
        return torch.zeros(1)

    run(tree_row(small_tree(policy, []), policy.device), listen)
    return found


def small_tree(policy: PreTrainedModel, windows: list[int | None]) -> list[Sample]:
    """A prompt and two completions of it, longer than the shortest window if that is not too long."""
    shortest = min([window for window in windows if window is not None], default=LONGEST_BRANCH)
    length = shortest + 2 if shortest + 2 <= LONGEST_BRANCH else BRANCH
    length = min(length, context_of(policy.config) - TRUNK)
    generator = torch.Generator().manual_seed(0)
    vocabulary = policy.config.get_text_config().vocab_size
    trunk, *branches = (
        tuple(torch.randint(vocabulary, (tokens,), generator=generator).tolist()) for tokens in (TRUNK, length, length)
    )
    return [Sample(trunk, branch) for branch in branches]


def tree_row(samples: list[Sample], device: torch.device) -> Row:
    """The samples as one step tree."""
    return build_row(PlannedRow((GroupTree.of((Unit(0, tuple(samples)),)),), 1.0)).to(device)


def own_logprobs(policy: PreTrainedModel, samples: list[Sample]) -> Tensor:
    """log p of the scored tokens of the samples' tree, by the model's own forward pass, one sequence beside the other.

    The samples are of one length. The order is that of a row's scored tokens.
    """
    row, scored = tree_row(samples, policy.device), sequence_logprobs(policy, samples)
    found = scored.new_empty(len(row.targets))
    found[row.members] = scored  # a token that several samples hold is the same in all of them
    return found


def sequence_logprobs(policy: PreTrainedModel, samples: list[Sample]) -> Tensor:
    """log p of the samples' completion tokens, one sample after the other, float32 or wider."""
    ours = policy.config._attn_implementation
    policy.set_attn_implementation("eager")  # which every model has, and which is what it means
    ids = torch.tensor([[*one.prompt_ids, *one.completion_ids] for one in samples], device=policy.device)
    try:
        logits = policy(input_ids=ids, use_cache=False).logits[:, :-1]
    finally:
        policy.set_attn_implementation(ours)
    logprobs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    return logprobs.gather(2, ids[:, 1:, None])[:, len(samples[0].prompt_ids) - 1 :, 0].flatten()


def gradient_difference(policy: PreTrainedModel, samples: list[Sample]) -> float:
    """How far the gradient of what is trained is from that of the model's own forward pass, as a share of the largest.

    The loss counts every token differently. The policy's gradients are gone afterwards.
    """
    row = tree_row(samples, policy.device)
    weights = torch.linspace(-1, 1, len(row.targets), device=policy.device)
    found = []
    for score in (row_logprobs(policy, row), own_logprobs(policy, samples)):
        (weights * score).sum().backward()
        found.append({name: value.grad for name, value in policy.named_parameters() if value.grad is not None})
        policy.zero_grad()  # sets new ones, and leaves those that were found
    ours, own = found
    if ours.keys() != own.keys():
        return float("inf")
    largest = max(float(value.abs().max()) for value in own.values())
    return max(float((ours[name] - value).abs().max()) for name, value in own.items()) / largest
