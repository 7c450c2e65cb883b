"""What is said of adapters in a config or on a command line.

Light, so that `--help` shows it without importing torch. Knows numbers. Does not know models; psr/policy/lora.py does.
"""

from dataclasses import dataclass
from typing import Literal

from psr.bounds import Count, Positive, bounded
from psr.errors import PSRError

BaseDType = Literal["float32", "bfloat16", "nf4"]


class LoRAError(PSRError, ValueError):
    """Adapters that cannot be had on this model; the message names the targets."""


@bounded("lora")
@dataclass(frozen=True)
class LoRA:
    """Trains low-rank adapters (Hu et al. 2021, arXiv 2106.09685) instead of the weights.

    Args:
        rank: rank of the adapters.
        alpha: their output is scaled by alpha / rank.
        targets: names of the modules that get one; "all-linear" means every linear layer but the head. Experts that a
            model holds as one tensor are no linear layers, and get none.
        dtype: what the frozen weights are held in: "float32", "bfloat16", half as much, or "nf4", 4 bits for the linear
            layers and bfloat16 for the rest (`pip install psr[qlora]`, one GPU).
    """

    rank: Count = 16
    alpha: Positive = 32.0
    targets: list[str] | str = "all-linear"
    dtype: BaseDType = "float32"
