"""Supervised fine-tuning on the same samples: TRL's SFTTrainer with packing against psr, and how much of the machine
psr uses.

    python benchmarks/sft.py --json runs/sft.json

One epoch from the same random weights, AdamW, bf16 autocast, rows of the same length. A measurement has a process of
its own; the two alternate, and the figures are medians. The samples are random token ids: a prompt of 60 to 180 tokens
and a completion of 120 to 360. TRL comes with `pip install psr[benchmark]`.

Model FLOP utilisation: the floating-point operations that the loss and its gradient need (6 for every weight that a
token is multiplied with, the head only where a completion is predicted, 12 * width for every pair of tokens that the
mask admits, in every layer), per second of the whole epoch, as a share of the fastest bf16 matrix product measured in
the same process.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from peers import FIRST_TOKEN, SHAPES, VOCABULARY, in_own_process, machine, make_model, train_with_psr
from psr.modules.sft import SFTModule
from psr.policy.folder import load_policy
from psr.policy.tokenizer import load_tokenizer
from psr.trees.packing import Plan, Unit, plan_rows
from psr.trees.step_tree import Sample

RATE = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--batch", type=int, default=24, help="samples per optimizer step; TRL: rows of as many tokens")
    parser.add_argument("--row-tokens", type=int, default=2048, help="tokens of a packed row")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    samples = random_samples(options.samples, options.shape)
    ways: dict[str, Callable[..., dict[str, Any]]] = {"trl": by_trl, "psr": by_psr}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        model = str(make_model(options.shape, Path(folder) / "model"))
        for _ in range(options.repeats):
            for name, way in ways.items():
                run = in_own_process(way, model, samples, options.batch, options.row_tokens)
                if run is None:
                    raise SystemExit(f"the process of {name} was killed: is there too little memory?")
                runs[name].append(run)
    medians = {name: {key: median(run[key] for run in found) for key in found[0]} for name, found in runs.items()}
    Console().print(table(medians))
    trl, psr = medians["trl"], medians["psr"]
    figures = {
        "speedup_vs_trl": trl["seconds"] / psr["seconds"],
        "memory_vs_trl": psr["peak_memory"] / trl["peak_memory"],
        **{key: psr[key] for key in ("mfu", "gemm_peak_gflops", "tokens_per_second")},
    }
    Console().print({key: round(value, 3) for key, value in figures.items()})
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**figures, "machine": machine(), "runs": runs}, indent=2) + "\n")


def random_samples(count: int, shape: str) -> list[Sample]:
    rng = random.Random(0)

    def words(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(FIRST_TOKEN, VOCABULARY[shape]) for _ in range(rng.randint(low, high)))

    return [Sample(words(60, 180), words(120, 360)) for _ in range(count)]


def by_psr(model: str, samples: list[Sample], batch: int, row_tokens: int) -> dict[str, float]:
    """The epoch's seconds, tokens per second and model FLOP utilisation."""
    peak = gemm_peak()
    plan = plan_rows([(Unit(i, (sample,)),) for i, sample in enumerate(samples)], batch, row_tokens, mean_over="tokens")
    seconds = train_with_psr(SFTModule(model, lr=RATE), plan)
    return {
        "seconds": seconds,
        "tokens_per_second": sum(map(len, samples)) / seconds,
        "gemm_peak_gflops": peak / 1e9,
        "mfu": training_flops(model, plan) / seconds / peak,
    }


def training_flops(model: str, plan: Plan) -> float:
    """Floating-point operations of the loss and its gradient, without what is computed twice or masked."""
    policy = load_policy(model)
    head, config = policy.get_output_embeddings().weight, policy.config
    inner = sum(p.numel() for p in policy.parameters() if p.dim() == 2) - head.numel()  # the embedding is looked up
    trees = [tree for row in plan.rows for tree in row.trees]
    attention = 12 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    return float(
        6 * inner * sum(tree.tokens for tree in trees)
        + 6 * head.numel() * sum(tree.scored for tree in trees)
        + attention * sum(tree.attended for tree in trees)
    )


def gemm_peak(size: int = 2048, repeats: int = 20) -> float:
    """The fastest bf16 matrix product of `repeats`, in floating-point operations per second."""
    left, right = torch.randn(2, size, size).to(torch.bfloat16)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def by_trl(model: str, samples: list[Sample], batch: int, row_tokens: int) -> dict[str, float]:
    """TRL's SFTTrainer in bf16 autocast, best-fit packing, without activation checkpointing."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [
        {
            "input_ids": [*sample.prompt_ids, *sample.completion_ids],
            "labels": [-100] * len(sample.prompt_ids) + list(sample.completion_ids),
        }
        for sample in samples
    ]
    tokens = sum(map(len, samples))
    rows_per_step = max(1, round(tokens * batch / len(samples) / row_tokens))
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            folder, learning_rate=RATE, num_train_epochs=1, packing=True, max_length=row_tokens,
            per_device_train_batch_size=1, gradient_accumulation_steps=rows_per_step, gradient_checkpointing=False,
            bf16=True, use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True,
            dataloader_pin_memory=False,
        )  # fmt: skip
        policy, tokenizer = load_policy(model), load_tokenizer(model)
        trainer = SFTTrainer(policy, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "tokens_per_second": tokens / seconds}


def table(medians: dict[str, dict[str, float]]) -> Table:
    out = Table("", "tokens/s", "peak memory", "model FLOP utilisation", title="supervised fine-tuning")
    for name, way in medians.items():
        share = f"{way['mfu']:.1%} of {way['gemm_peak_gflops']:.0f} GFLOP/s" if "mfu" in way else ""
        out.add_row(name, f"{way['tokens_per_second']:.0f}", f"{way['peak_memory'] / 2**30:.2f} GiB", share)
    return out


if __name__ == "__main__":
    main()
