"""What the comparisons with another trainer share: the model's shape, an epoch with psr, a process per measurement.

Every measurement runs in a process of its own, so that its peak memory is its own and nothing is warm from another.
"""

import multiprocessing
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from psr.data.rows import row_loader
from psr.modules.training import RowModule
from psr.policy.folder import export_policy, new_policy
from psr.trees.packing import Plan

SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    # Qwen2's sizes; Llama's code differs from its own by a bias on the output projection.
    "qwen2-0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "attention_bias": True,
        "tie_word_embeddings": True,
    },
    "qwen2-1.5b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "attention_bias": True,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
}
VOCABULARY = {"smollm2-135m": 49152, "qwen2-0.5b": 151936, "qwen2-1.5b": 151936, "tiny": 64}
CLIP = 1.0
"""Gradient norm that every trainer clips at."""
FIRST_TOKEN = 2
"""The lowest id that is a word; below are the padding and the end of a sequence."""


def make_model(shape: str, folder: Path) -> Path:
    """A Hugging Face folder with a Llama of that shape, random weights and a tokenizer of as many words."""
    words = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(FIRST_TOKEN, VOCABULARY[shape])}}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")), pad_token="<pad>", eos_token="<eos>"
    )
    torch.manual_seed(0)
    export_policy(new_policy("llama", SHAPES[shape], tokenizer), tokenizer, folder)
    return folder


def in_own_process(measure: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any] | None:
    """What `measure` returns and, unless it says so itself, as `peak_memory` the most bytes that its process held, on
    the GPU where there is one; `None` if it was killed."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_measured, measure, arguments).result()
        except BrokenProcessPool:
            return None


def _measured(measure: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> dict[str, Any]:
    # Where memory runs out, Linux kills this process and not another one.
    Path("/proc/self/oom_score_adj").write_text("1000")
    torch.set_flush_denormal(True)  # as psr itself does; random weights hardly meet any
    result = measure(*arguments)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _peak_memory()
    return {"peak_memory": peak, **result}


def _peak_memory() -> int:
    """Linux: the high-water mark of resident memory. `getrusage` would count what the parent held before the fork."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


class PeakMemory(Callback):
    """The most bytes on the GPU; psr's own figures are by optimizer step, and torch's begin anew with each of them."""

    def __init__(self) -> None:
        self.bytes = 0

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        of_step = float(trainer.callback_metrics.get("train/gpu_gb_allocated", 0.0)) * 1e9
        self.bytes = max(self.bytes, int(of_step), torch.cuda.max_memory_allocated())


def train_with_psr(module: RowModule, plan: Plan, callbacks: list[Callback] | None = None) -> float:
    """One epoch of the plan's rows; its seconds, without loading the model."""
    trainer = Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu", devices=1,
        precision="bf16-mixed", max_epochs=1, gradient_clip_val=CLIP, callbacks=callbacks,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module.trainer = trainer  # whose strategy decides how the model is loaded
    module.configure_model()
    started = time.perf_counter()
    trainer.fit(module, row_loader(plan, trainer))  # the last log reads the loss: nothing is under way on a GPU
    return time.perf_counter() - started


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "cpu": names[0] if names else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
