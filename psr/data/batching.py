"""Padding of (prompt, completion) token sequences into tensors. Knows no tokenizer and no loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """A prompt and the completion that is trained on."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


def pad(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Right-padded `input_ids`, `attention_mask` and `completion_mask`, each (samples, longest)."""
    longest = max(len(sample) for sample in samples)
    batch = {
        name: torch.zeros(len(samples), longest, dtype=torch.long)
        for name in ("input_ids", "attention_mask", "completion_mask")
    }
    for i, sample in enumerate(samples):
        start, end = len(sample.prompt_ids), len(sample)
        batch["input_ids"][i, :end] = torch.tensor([*sample.prompt_ids, *sample.completion_ids])
        batch["attention_mask"][i, :end] = 1
        batch["completion_mask"][i, start:end] = 1
    return batch
