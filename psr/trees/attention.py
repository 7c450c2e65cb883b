"""Attention among the tokens of a packed row of step trees: the one place that decides how it is computed.

On CUDA it is FlexAttention with a block mask. On a CPU it is the blockwise attention of psr/trees/blockwise.py, or, for
sequences that share nothing, torch's own kernel. All are exact, and get into transformers' own models by its attention
interface. What a model tells its attention layer by layer is heeded: a sliding window, counted along a token's own
path; a soft-cap of the scores; attention sinks. Dropout is not: nothing is trained with it (psr/policy/folder.py).

Knows the mask of a row (`ends` of psr/trees/step_tree.py) and positions. Does not know trees, pairs or losses.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.flex_attention import flex_attention_forward

from psr.trees.blockwise import BlockwiseAttention
from psr.trees.row_mask import RowMask

NAME = "psr_step_tree"


def use_tree_attention(policy: PreTrainedModel) -> PreTrainedModel:
    """Switch the model to this module's attention; from now on its forward needs `attention_arguments`."""
    policy.set_attn_implementation(NAME)
    return policy


def attention_arguments(ends: Tensor, positions: Tensor) -> dict[str, Any]:
    """Keyword arguments of the model's forward, for a row with these `ends` and positions; both (tokens,)."""
    return {"attention_mask": RowMask(ends, positions)}


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: RowMask,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls: (1, heads, tokens, width) to (1, tokens, heads, width).

    `sliding_window`, `softcap` and `s_aux` (a sink per head) are what some models give it, under the names they use.
    """
    if query.device.type == "cuda":
        mask = attention_mask.flex(sliding_window)
        output, _ = flex_attention_forward(
            module, query, key, value, mask, scaling=scaling, softcap=softcap, s_aux=s_aux
        )
        return output, None
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast, rotary embedding leaves them in float32
    plain = softcap is None and s_aux is None and not attention_mask.cut_by(sliding_window)
    if plain and attention_mask.chains is not None and value.dtype != torch.bfloat16:  # there torch's kernel is slower
        return chain_attention(query, key, value, scaling, attention_mask.chains), None
    sinks = None if s_aux is None else s_aux.to(value.dtype)
    with torch.autocast(query.device.type, enabled=False):  # or softmax would go to float32 and back
        blocks = attention_mask.blocks(sliding_window)
        output = BlockwiseAttention.apply(query[0], key[0], value[0], scaling, blocks, softcap, sinks)
    return output[None], None


def chain_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float, lengths: list[int]) -> Tensor:
    """Causal attention within each of the concatenated sequences; shapes as in `tree_attention`."""
    # Grouped-query attention: each query head gets its own copy of the key and value head that its group shares.
    heads = [x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (query, key, value)]
    outputs = [  # of each sequence: (1, heads, length, width)
        F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=scaling)
        for queries, keys, values in zip(*(x.split(lengths, dim=2) for x in heads), strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2)


AttentionInterface.register(NAME, tree_attention)
