"""Whether what is trained is the model: a numerical check of a loaded policy, before anything is trained.

A model that psr would compute wrongly trains another model, and every figure looks well. So a small tree with branches
is scored by the code that trains and, pair by pair, by the model's own forward pass. No list of names decides. Knows
models, trees and packed rows. Does not know losses, Lightning or engines.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from psr.policy.context import context_of
from psr.policy.masks import UnsupportedModel, attention_windows
from psr.trees.attention import NAME
from psr.trees.packing import GroupTree, PlannedRow, Row, Unit, build_row
from psr.trees.scoring import row_logprobs
from psr.trees.step_tree import Sample

TRUNK, BRANCH = 4, 8
"""Tokens of the tree: what a model of billions of parameters computes on a CPU in about a second."""
LONGEST_BRANCH = 40
"""Branches are longer where that brings a sliding window into play."""
TOLERANCES = {torch.float64: 1e-6, torch.float32: 2e-3, torch.bfloat16: 0.3, torch.float16: 0.1}
"""Largest difference of a log-probability that rounding explains, by the type of the logits."""

Score = Callable[[PreTrainedModel, Row], Tensor]


def check_policy(policy: PreTrainedModel, folder: str | Path, run: Callable[[Score, Row], Tensor]) -> float:
    """Raise UnsupportedModel where the policy as it is trained is not the model in `folder`; else the largest difference.

    `run` calls a score with the policy and a row as training does, which is how sharded weights are gathered.
    """
    kind = policy.config.model_type
    try:
        windows = _windows(policy, run)
        samples = small_tree(policy, windows)
        with torch.no_grad():
            ours = run(row_logprobs, tree_row(samples, policy.device))
            own = run(lambda policy, _: own_logprobs(policy, samples), tree_row(samples, policy.device))
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AttributeError, AssertionError) as error:
        reason = str(error) if isinstance(error, UnsupportedModel) else f"{type(error).__name__}: {error}"
        raise UnsupportedModel(f"psr cannot train {kind} ({folder}): {reason.strip().splitlines()[0]}") from error
    finally:
        policy.set_attn_implementation(NAME)
    difference, tolerance = float((ours - own).abs().max()), TOLERANCES[policy.dtype]
    if not difference <= tolerance:
        raise UnsupportedModel(
            f"psr cannot train {kind} ({folder}): log-probabilities in a step tree differ from the model's own by up to "
            f"{difference:.2g} (tolerance {tolerance:.0e})"
        )
    return difference


def _windows(policy: PreTrainedModel, run: Callable[[Score, Row], Tensor]) -> list[int | None]:
    """The sliding window of every layer."""
    found: list[int | None] = []

    def listen(policy: PreTrainedModel, row: Row) -> Tensor:
        found.extend(attention_windows(policy, context_of(policy.config)))
        return torch.zeros(1)

    run(listen, tree_row(small_tree(policy, []), policy.device))
    policy.set_attn_implementation(NAME)
    return found


def small_tree(policy: PreTrainedModel, windows: list[int | None]) -> list[Sample]:
    """A prompt and two completions of it, longer than the shortest window if that is not too long."""
    shortest = min([window for window in windows if window is not None], default=LONGEST_BRANCH)
    room = context_of(policy.config) - TRUNK
    length = min(shortest + 2 if shortest + 2 <= LONGEST_BRANCH else BRANCH, room)
    generator = torch.Generator().manual_seed(0)
    vocabulary = policy.get_input_embeddings().num_embeddings
    trunk, *branches = (
        tuple(torch.randint(vocabulary, (tokens,), generator=generator).tolist()) for tokens in (TRUNK, length, length)
    )
    return [Sample(trunk, branch) for branch in branches]


def tree_row(samples: list[Sample], device: torch.device) -> Row:
    """The samples as one step tree."""
    return build_row(PlannedRow((GroupTree.of((Unit(0, tuple(samples)),)),), 1.0)).to(device)


def own_logprobs(policy: PreTrainedModel, samples: list[Sample]) -> Tensor:
    """log p of the tree's scored tokens as the model's own forward pass computes them, one sequence beside the other.

    The samples are of one length; the order is that of a row's scored tokens.
    """
    policy.set_attn_implementation("eager")  # which every model has, and which is what it means
    ids = torch.tensor([[*one.prompt_ids, *one.completion_ids] for one in samples], device=policy.device)
    logits = policy(input_ids=ids, use_cache=False).logits[:, :-1]
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    scored = wide.gather(2, ids[:, 1:, None])[:, len(samples[0].prompt_ids) - 1 :, 0]
    policy.set_attn_implementation(NAME)
    row = tree_row(samples, policy.device)
    found = scored.new_empty(len(row.targets))
    found[row.members] = scored.flatten()  # a token that both hold is the same in both
    return found
