"""How long a text a model takes: the positions over which it is one and the same function.

Knows the configs of transformers. Does not know weights or tokenizers.
"""

from transformers import PreTrainedConfig

UNBOUNDED = 2**20
"""Stands for the context of models that name none, such as those without positional embeddings."""


def context_of(config: PreTrainedConfig) -> int:
    """Tokens of the longest sequence.

    LongRoPE has two sets of rotary factors, chosen by the longest sequence of a batch. Up to the length that it was
    pretrained with, a sequence is computed the same whatever stands beside it; beyond, packing would change it.
    """
    text = config.get_text_config()
    context = int(getattr(text, "max_position_embeddings", None) or UNBOUNDED)
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    short = [kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"]
    return min([context, *short])
