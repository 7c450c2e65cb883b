"""The obvious way to score completions, for the tests: one sequence at a time, all logits, nothing shared."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from psr.policy.folder import load_policy
from psr.trees.step_tree import Sample


def logprobs(model: PreTrainedModel, sample: Sample) -> Tensor:
    """log p of every token of the completion: (completion tokens,)."""
    ids = torch.tensor([*sample.prompt_ids, *sample.completion_ids])
    predicted = model(input_ids=ids[None], use_cache=False).logits[0, :-1].log_softmax(-1)
    each = predicted.gather(1, ids[1:, None]).squeeze(1)
    return each[len(sample.prompt_ids) - 1 :]


def exact_policy(folder: Path) -> PreTrainedModel:
    """The model in float64 throughout: transformers' own RMSNorm computes in float32 whatever the weights are."""
    model = load_policy(folder, torch.float64)
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            norm = torch.nn.RMSNorm(module.weight.shape, eps=module.variance_epsilon, dtype=torch.float64)
            norm.weight = module.weight
            model.set_submodule(name, norm)
    return model
