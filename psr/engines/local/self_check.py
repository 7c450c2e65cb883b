"""Whether what the in-process engine generates is what the model would: a numerical check when a model is loaded.

Two prompts that begin alike are answered greedily, so that prefill, branches and decoding all take part, and then read
by the model's own forward pass. Knows the core. Does not know jobs or weights versions.
"""

import numpy as np
import torch
from torch import Tensor

from psr.engines.base import EngineError, Sampling
from psr.engines.local.attention import NAME
from psr.engines.local.core import Core
from psr.engines.local.rows import Row
from psr.policy.masks import UnsupportedModel, attention_windows
from psr.policy.reading import one_line
from psr.policy.self_check import WRONG, close, difference, sequence_logprobs, small_tree
from psr.trees.step_tree import Sample

TOKENS = 2
"""Tokens that are generated for each prompt: the first comes from prefill, the second from decoding."""
CHOICES = (2, 3)
"""Tokens that are scored after the prompts, as verdicts are."""


@torch.inference_mode()
def check_core(core: Core) -> float:
    """Raise EngineError where the engine would generate wrongly; else how far log-probabilities differ."""
    model, folder = core.model, core.model.config.name_or_path
    cannot = f"the in-process engine cannot serve the {model.config.model_type} in {folder}"
    try:
        windows = attention_windows(model, core.context)
        model.set_attn_implementation(NAME)
        found = difference(*answers(core, [prompt_of(one, core.context) for one in small_tree(model, windows)]))
    except UnsupportedModel as error:
        raise EngineError(f"{cannot}: {error}") from error
    except WRONG as error:
        raise EngineError(f"{cannot}: {one_line(error)}") from error
    finally:
        core.clear()
    if not close(found, model.dtype):
        raise EngineError(
            f"{cannot}: log-probabilities of what it generates differ from the model's own by {found:.2g}"
        )
    return found


def answers(core: Core, prompts: list[tuple[int, ...]]) -> tuple[Tensor, Tensor, torch.dtype]:
    """Log-probabilities of greedy answers and of choices, by the engine and by the model; the type of the weights."""
    greedy = [Row(prompt, Sampling(max_new_tokens=TOKENS), np.zeros(TOKENS)) for prompt in prompts]
    scored = [Row(prompt, Sampling(max_new_tokens=0), np.empty(0), CHOICES) for prompt in prompts]
    core.ask([*greedy, *scored])
    while core.busy:
        core.step()
    ours = [row.logprob for row in greedy] + [score for row in scored for score in row.scores]
    read = [(row.prompt, row.token_ids) for row in greedy]
    read += [(row.prompt, [choice]) for row in scored for choice in row.choices]
    # Completions of one length in one forward pass: what is filled up comes after everything that counts.
    filled = [Sample(prompt, (*ids, *[0] * (TOKENS - len(ids)))) for prompt, ids in read]
    logprobs = sequence_logprobs(core.model, filled).view(len(read), TOKENS)
    own = [each[: len(ids)].sum() for each, (_, ids) in zip(logprobs, read, strict=True)]
    return torch.tensor(ours), torch.stack(own), core.model.dtype


def prompt_of(sample: Sample, context: int) -> tuple[int, ...]:
    """All of the sample, as far as an answer has room after it."""
    return (*sample.prompt_ids, *sample.completion_ids)[: context - TOKENS]
