"""How fast a fit trains and what of the GPU it uses, by optimizer step: tokens, MFU, memory, compilations.

Model FLOP utilisation (Chowdhery et al. 2022, arXiv 2204.02311, appendix B) counts what the loss and its gradient need,
and not what is computed again or masked. Knows rows and layers. Does not know losses.
"""

import time
from dataclasses import dataclass, field

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from torch import nn
from transformers import PreTrainedModel

from psr.trees.flex import CompilationWatch
from psr.trees.packing import Row


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of a training pass: for every token, every scored token, every (query, key) pair."""

    token: float
    scored: float
    pair: float

    @classmethod
    def of(cls, policy: PreTrainedModel) -> "Cost | None":
        """Two for every weight in the forward pass, two for the gradient of its input, two for its own if it has one.

        The embedding is looked up, and the head is computed where a completion is predicted. Of a pair: a product for
        its score and one for its value, each with two more in the backward pass, over the width of all heads. None for
        a model that is laid out otherwise: how many of its experts a token meets is not seen from their shapes.
        """
        head = policy.get_output_embeddings()
        linear = [module for module in policy.modules() if isinstance(module, nn.Linear)]
        costs = {one: (6 if one.weight.requires_grad else 4) * one.in_features * one.out_features for one in linear}
        width = sum(m.in_features for name, m in policy.named_modules() if name.endswith("self_attn.o_proj"))
        counted = {id(m.weight) for m in policy.modules() if isinstance(m, nn.Linear | nn.Embedding)}
        if not width or any(p.ndim > 1 and id(p) not in counted for p in policy.parameters()):
            return None
        scored = costs.pop(head)
        return cls(sum(costs.values()), scored, 12 * width)

    def row(self, row: Row) -> float:
        pairs = int(row.position_ids.sum()) + len(row.position_ids)
        return self.token * len(row.token_ids) + self.scored * len(row.targets) + self.pair * pairs


def peak_flops(device: torch.device, peak_tflops: float | None) -> float | None:
    """What the GPU can do in bfloat16, per second: as given, else by its name; None where nobody knows."""
    if peak_tflops is not None:
        return peak_tflops * 1e12
    found = get_available_flops(device, torch.bfloat16) if device.type == "cuda" else None
    return None if found is None else float(found)


@dataclass
class Speed:
    """Counts rows and time from one optimizer step to the next. The clock stands still while something else is done."""

    cost: Cost | None
    peak: float | None
    tokens: int = 0
    flops: float = 0.0
    started: float | None = None
    watch: CompilationWatch = field(default_factory=CompilationWatch)

    def add(self, row: Row) -> None:
        """A row that is on its way to the GPU."""
        if self.started is None:
            self.started = time.perf_counter()
        self.watch.see(len(row.token_ids))
        self.tokens += len(row.token_ids)
        if self.cost is not None:
            self.flops += self.cost.row(row)

    def pause(self) -> None:
        """What comes now is no training."""
        self.started, self.tokens, self.flops = None, 0, 0.0

    def take(self, device: torch.device) -> dict[str, float]:
        """Figures of this process since the last call; the step's own update counts to the next one."""
        if self.started is None:
            return {}
        now = time.perf_counter()
        seconds = now - self.started
        figures = {"tokens_per_second": self.tokens / seconds}
        if self.peak is not None and self.cost is not None:
            figures["mfu"] = self.flops / seconds / self.peak
        if device.type == "cuda":
            figures["gpu_gb_allocated"] = torch.cuda.max_memory_allocated(device) / 1e9
            figures["gpu_gb_reserved"] = torch.cuda.max_memory_reserved(device) / 1e9
            figures["compilations"] = float(self.watch.check())
            torch.cuda.reset_peak_memory_stats(device)
        self.started, self.tokens, self.flops = now, 0, 0.0
        return figures
