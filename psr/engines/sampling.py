"""Nucleus (top-p) sampling by inverse CDF. Knows only tensors, not who drew the uniforms, or for what."""

import torch
from torch import Tensor

FIRST_TRY = 1024
"""Nearly every nucleus is smaller, and sorting a vocabulary of 49,000 took a third of a small model's decoding time."""


def nucleus_sample(logprobs: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """One token for each row: (rows,).

    It is where the nucleus's cumulative distribution, most likely token first, reaches `uniform`. Unlike
    torch.multinomial, this makes a token a function of its own row and draw, whatever else is in the batch.

    Args:
        logprobs: log-probabilities after the temperature (rows, vocabulary).
        top_p: the nucleus is the smallest set of most likely tokens with at least this probability (rows,).
        uniform: one draw from [0, 1) for each row (rows,).
    """
    probs, top_p, uniform = logprobs.exp(), top_p[:, None], uniform[:, None]
    if probs.shape[1] <= FIRST_TRY:
        return _pick(*probs.sort(dim=-1, descending=True), top_p, uniform)
    top, order = probs.topk(FIRST_TRY)  # (rows, FIRST_TRY)
    tokens = _pick(top, order, top_p, uniform)
    wider = top.sum(-1) < top_p[:, 0]  # rows whose nucleus has more tokens: only these sort the whole vocabulary
    if wider.any():
        tokens[wider] = _pick(*probs[wider].sort(dim=-1, descending=True), top_p[wider], uniform[wider])
    return tokens


def _pick(probs: Tensor, order: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """`probs` (rows, tokens) is descending, `order` holds the tokens' ids; `top_p` and `uniform` are (rows, 1)."""
    # A token is in the nucleus if those before it do not fill it; so the first one always is.
    kept = torch.where(probs.cumsum(-1) - probs < top_p, probs, 0.0).cumsum(-1)
    # Scaling the draw by the nucleus's total renormalizes it. The clamp is for rounding in the sums.
    picked = (kept < uniform * kept[:, -1:]).sum(-1, keepdim=True).clamp(max=probs.shape[1] - 1)
    return order.gather(1, picked).squeeze(1)
