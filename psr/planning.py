"""What a fit will need, by arithmetic: memory of each GPU, part by part, and the requests and tokens of an iteration.

The model is built on the meta device from its config.json alone. Knows shapes and settings. Touches no GPU and no data.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from psr.policy.sharding import COLUMNS, ROWS
from psr.trees.scoring import CHUNK

MASTER = 4
"""Bytes of a float32 weight, and of its gradient; AdamW's two moments take twice as much."""
GB = 1e9


@dataclass(frozen=True)
class Architecture:
    """The sizes of a causal language model that determine its memory, in elements.

    `divided` are the weights of a layer that tensor parallelism divides, `whole` those that every rank holds. A head
    that is tied to the embedding counts once in `total`.
    """

    name: str
    total: int
    layers: int
    divided: int
    whole: int
    head: int
    hidden: int
    intermediate: int
    heads: int
    key_value: int
    vocabulary: int

    @classmethod
    def of(cls, config_file: Path) -> "Architecture":
        """From a config.json."""
        config = AutoConfig.from_pretrained(str(config_file), local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        assert isinstance(model, PreTrainedModel)
        layers: Any = model.base_model.layers  # type: ignore[union-attr]
        layer = layers[0]
        divided = sum(p.numel() for name in (*COLUMNS, *ROWS) for p in layer.get_submodule(name).parameters())
        attention = layer.self_attn
        return cls(
            name=f"{config.model_type}, {config.num_hidden_layers} layers of width {config.hidden_size}",
            total=sum(p.numel() for p in model.parameters()),
            layers=config.num_hidden_layers,
            divided=divided,
            whole=sum(p.numel() for p in layer.parameters()) - divided,
            head=config.vocab_size * config.hidden_size,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=config.num_attention_heads,
            key_value=attention.k_proj.out_features,
            vocabulary=config.vocab_size,
        )


@dataclass(frozen=True)
class Layout:
    """How a fit is parallelized.

    Args:
        gpus: all GPUs.
        tensor_parallel: GPUs that share every layer.
        sharded: FSDP2; otherwise every GPU holds all weights.
        compute_bytes: bytes of an element of gathered weights and of activations.
        row_tokens: tokens of a micro-batch (a packed row).
        checkpoint_activations: keep only the inputs of the layers.
        cpu_offload: shards and optimizer state are in host memory.
    """

    gpus: int
    tensor_parallel: int
    sharded: bool
    compute_bytes: int
    row_tokens: int
    checkpoint_activations: bool
    cpu_offload: bool

    @property
    def data_parallel(self) -> int:
        return self.gpus // self.tensor_parallel


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU by part; `alternatives` are what the other setting would need, and do not count."""

    parts: dict[str, float]
    alternatives: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def memory(arch: Architecture, layout: Layout) -> Memory:
    """What a GPU holds at the peak, in the backward pass of a layer; the allocator's fragmentation comes on top."""
    split, tp = layout.data_parallel if layout.sharded else 1, layout.tensor_parallel
    divided = arch.layers * arch.divided
    # Embeddings, norms and the head are sharded by FSDP but not divided by tensor parallelism.
    held = divided / (split * tp) + (arch.total - divided) / split
    on_gpu = 0.0 if layout.cpu_offload else held
    parts = {
        "weights, float32": MASTER * on_gpu,
        "gradients, float32": MASTER * on_gpu,
        "optimizer, two moments": 2 * MASTER * on_gpu,
    }
    if layout.sharded:
        layer = arch.divided / tp + arch.whole
        # Two layers, as FSDP gathers the next one while the current one computes.
        parts["gathered: two layers, head"] = layout.compute_bytes * (2 * layer + arch.head)
        # Unsharded gradients in the compute dtype, and the float32 copy that is reduce-scattered.
        parts["gradients of a layer or the head, whole"] = (layout.compute_bytes + MASTER) * max(layer, arch.head)
    inputs = layout.row_tokens * arch.hidden * arch.layers * layout.compute_bytes
    one_layer = layout.row_tokens * layer_activations(arch, tp, layout.compute_bytes)
    kept, every = inputs + one_layer, arch.layers * one_layer
    name = "activations, checkpointed" if layout.checkpoint_activations else "activations"
    parts[name] = kept if layout.checkpoint_activations else every
    # For a chunk of tokens: logits, their float32 copy, its gradient, and the gradient of the logits.
    logits = min(CHUNK, layout.row_tokens) * arch.vocabulary * 2 * (layout.compute_bytes + MASTER)
    parts["logits of a chunk"] = logits
    parts["reference"] = 0.0  # its log-probabilities are computed once, and wait in the host's memory
    other = {"activations": every} if layout.checkpoint_activations else {"activations, checkpointed": kept}
    return Memory(parts, other)


def layer_activations(arch: Architecture, tp: int, element: int) -> float:
    """Bytes per token that a layer keeps for its backward pass.

    Both norms keep their input in float32 and their normalized input twice; attention keeps queries, keys, values,
    output and a float32 log-sum-exp per head; the MLP its gate, the activation of that, the other branch and their
    product.
    """
    # Norms compute on whole hidden states on every rank; heads and the MLP's width are divided by tensor parallelism.
    norms = 2 * (2 * element + MASTER) * arch.hidden
    attention = element * (2 * arch.hidden + 2 * arch.key_value) + MASTER * arch.heads
    return norms + (attention + 4 * element * arch.intermediate) / tp


@dataclass(frozen=True)
class Server:
    """A colocated server, on the GPUs that train: it holds its memory during a search and releases it for training.

    Args:
        gpus: GPUs that share a copy of the model.
        fraction: share of a GPU's memory for weights and KV cache.
        element: bytes of a weight and of an element of the KV cache.
    """

    gpus: int
    fraction: float
    element: int


def serving_memory(arch: Architecture, layout: Layout, server: Server, gpu_memory: float) -> Memory:
    """What a GPU holds during a search: the server's share, and the trainer's weights and optimizer state.

    A negative cache means that the share is too small for the weights.
    """
    weights = server.element * arch.total / server.gpus
    resting = ("weights, float32", "optimizer, two moments")
    kept = {f"trainer: {name}": size for name, size in memory(arch, layout).parts.items() if name in resting}
    return Memory({"server: weights": weights, "server: cache": server.fraction * gpu_memory * GB - weights, **kept})


def cached_tokens(arch: Architecture, server: Server, cache: float) -> float:
    """Tokens in the KV cache of one copy of the model, which has `cache` bytes on each of its GPUs."""
    return cache * server.gpus / (2 * arch.layers * arch.key_value * server.element)  # 2: keys and values


@dataclass(frozen=True)
class Guess:
    """Assumptions about what is not known before the search.

    Args:
        gpu_memory: memory of a GPU in GB.
        usable: share of it that can be used; the rest is for the CUDA context, NCCL and fragmentation.
        steps: steps of a solution; the paper's 7B model took 9.35 on MATH as M1.
        step_tokens: tokens of a step.
        problem_tokens: tokens of a problem with its prompt.
        explanation_tokens: tokens of a judge's explanation with its verdict.
    """

    gpu_memory: float = 80.0
    usable: float = 0.9
    steps: float = 9.35
    step_tokens: float = 62.0
    problem_tokens: float = 200.0
    explanation_tokens: float = 200.0


def iteration_work(problems: int, width: int, both_orders: bool, explains: bool, guess: Guess) -> dict[str, float]:
    """Requests and tokens of an iteration's search: upper bounds, as duplicate candidates are not known before."""
    expansions = problems * guess.steps
    verdicts = expansions * width * (width - 1) / (1 if both_orders else 2)
    # The mean over the expansions of a solution, before which 0, 1, ..., steps - 1 steps stand.
    prefix = guess.problem_tokens + guess.step_tokens * (guess.steps - 1) / 2
    return {
        "problems": problems,
        "candidates": expansions * width,
        "verdicts, at most": verdicts,
        "prompt tokens": expansions * width * prefix + verdicts * (prefix + 2 * guess.step_tokens),
        "generated tokens": expansions * width * guess.step_tokens + verdicts * explains * guess.explanation_tokens,
        "step pairs, at most": expansions,
        # A step tree holds the problem once, and of every expansion the chosen and the rejected step.
        "tokens of the step trees": problems * guess.problem_tokens + 2 * expansions * guess.step_tokens,
    }
