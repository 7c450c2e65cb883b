"""What a model asks of its attention, layer by layer, over the whole context and without computing it.

Packed rows and the in-process engine make their own masks from what a layer gives its attention function: a sliding
window, or none. Whether that is all that the model means is found by letting it run once with an attention function
that only listens: it gets the rule by which the model itself would mask, and compares. Knows transformers' attention
interface. Does not know rows, engines or weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from psr.errors import PSRError

NAME = "psr_listening"
IGNORED = {
    "dropout",  # nothing is trained with it
    "is_causal",  # looked at where it is given
    "position_ids",  # the rotary embedding has heeded them
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
}
"""What a layer may give its attention without a consequence for what it computes."""
HEEDED = {"scaling", "softcap", "s_aux"}

MaskRule = Callable[[int, int, Tensor, Tensor], Tensor]


class UnsupportedModel(PSRError, ValueError):
    """A model that psr would compute wrongly; the message says what of it."""


@dataclass
class Listener:
    """The sliding windows of the layers that have called so far; `context` is how many positions are compared."""

    context: int
    windows: list[int | None] = field(default_factory=list)

    def attend(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: MaskRule,
        sliding_window: int | None = None,
        **told: Any,
    ) -> tuple[Tensor, None]:
        """As an attention function: (1, heads, tokens, width) to zeros (1, tokens, heads, value width).

        Raises UnsupportedModel for what psr's attention does not heed.
        """
        unknown = sorted(name for name, value in told.items() if value is not None and name not in IGNORED | HEEDED)
        if unknown:
            raise UnsupportedModel(f"its attention is told {', '.join(unknown)}, which psr's does not heed")
        if told.get("is_causal") is False:
            raise UnsupportedModel("its attention looks ahead")
        last, keys = torch.tensor(self.context - 1), torch.arange(self.context)
        seen = attention_mask(0, 0, last, keys).expand(self.context)
        if not torch.equal(seen, keys > last - (sliding_window or self.context)):
            window = "no window" if sliding_window is None else f"a window of {sliding_window} tokens"
            raise UnsupportedModel(f"a layer is told of {window}, and its mask at position {int(last)} is another one")
        self.windows.append(sliding_window)
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None

    def mask(self, *arguments: Any, mask_function: MaskRule, **named: Any) -> MaskRule:
        """As what makes masks: the rule itself instead of a tensor."""
        return mask_function


@torch.no_grad()
def attention_windows(policy: PreTrainedModel, context: int) -> list[int | None]:
    """The sliding window of every layer, None where it sees the whole context. Raises UnsupportedModel.

    The policy's attention function is another one afterwards.
    """
    listener = Listener(context)
    AttentionInterface.register(NAME, listener.attend)
    AttentionMaskInterface.register(NAME, listener.mask)
    policy.set_attn_implementation(NAME)
    if policy.config._attn_implementation != NAME:
        raise UnsupportedModel("its attention is not computed through transformers' attention interface")
    ids = torch.zeros(1, 2, dtype=torch.long, device=policy.device)
    padding = torch.ones_like(ids)  # given, or a model might look for packed sequences
    policy.base_model(input_ids=ids, attention_mask=padding, use_cache=False)
    return listener.windows
