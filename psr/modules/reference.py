"""Reference log-probabilities: computed once per iteration by the same code as in training, and stored on disk.

The store is keyed by a hash of weights, rows and conditions (precision, adapters on or off): a run that was killed
resumes without computing them again, and can never use those of another reference.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from psr.files.whole import replacing
from psr.trees.packing import Row
from psr.trees.scoring import row_logprobs


def reference_logprobs(
    policy: PreTrainedModel,
    rows: Iterable[Row],
    device: torch.device,
    conditions: str = "",
    store: Path | None = None,
    score: Callable[[PreTrainedModel, Row], Tensor] = row_logprobs,
    everywhere: Callable[[bool], bool] = bool,
) -> list[Tensor]:
    """The policy's log-probabilities of every row's scored tokens, each (scored,), on the CPU.

    Read from `store` if it holds those of these weights, rows and `conditions` (what else the values depend on);
    otherwise computed by `score` and written there. Ranks that share the weights compute together or not at all:
    `everywhere` tells whether a condition holds on all of them. Each has its own rows and its own store. `rows` are
    gone through twice, and may be made each time: an epoch's tensors need not fit at once.
    """
    key, lengths = ("", list[int]()) if store is None else _key(policy, rows, conditions)
    stored = _stored(store, key)
    # With sharded weights a forward is a collective: one rank without a store needs all the others to compute, too.
    if everywhere(stored is not None):
        assert stored is not None
        return list(stored.split(lengths))
    with torch.no_grad():
        logprobs = [score(policy, row.to(device)).float().cpu() for row in rows]
    if store is not None:
        with replacing(store) as partial:  # one tensor for all rows, split again when read
            save_file({"logprobs": torch.cat(logprobs)}, partial, {"key": key})
    return logprobs


def _stored(store: Path | None, key: str) -> Tensor | None:
    """The log-probabilities in the store, if they were written under this key."""
    if store is None or not store.is_file():
        return None
    with safe_open(store, "pt") as stored:
        return stored.get_tensor("logprobs") if stored.metadata() == {"key": key} else None


def _key(policy: PreTrainedModel, rows: Iterable[Row], conditions: str) -> tuple[str, list[int]]:
    """A hash of everything that the values depend on, for sharded weights of this rank's shards; each row's scored
    tokens."""
    lengths = []
    digest = hashlib.sha256(conditions.encode())
    for name, value in policy.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(_bytes(value))
    for row in rows:  # not `members` and `owners`: log-probabilities are per scored token
        for value in (row.token_ids, row.position_ids, row.ends, row.sources, row.targets):
            digest.update(_bytes(value))
        lengths.append(len(row.targets))
    return digest.hexdigest(), lengths


def _bytes(value: Tensor) -> memoryview:
    # Viewed as uint8, since NumPy has no bfloat16.
    value = value.to_local() if isinstance(value, DTensor) else value
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
