"""Is what psr trains, serves and exports the model that transformers computes? Family by family, on tiny random models.

    python benchmarks/families.py --json benchmarks/results/families.json

Every row is a real run. "training" and "gradient" compare a step tree with the model's own forward pass (the largest
difference of a log-probability, and of the gradient as a share of its largest element); "engine" says how many of some
greedy completions of the in-process engine equal `generate`'s; "SFT" is the loss of held-out samples after some
supervised steps, by psr and by transformers on the exported folder; "LoRA" compares an export with adapters merged. A
family that psr would compute wrongly has to be refused when it is loaded: then the row ends with the reason.
"""

import argparse
import asyncio
import json
import logging
import random
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from lightning import Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from families_models import FAMILIES
from peers import machine
from psr.commands.check import exporting
from psr.data.rows import row_loader
from psr.engines.base import Completion, Sampling
from psr.engines.local import LocalEngine
from psr.errors import PSRError
from psr.modules.sft import SFTModule
from psr.policy.folder import export_policy, load_trainable, new_policy
from psr.policy.lora import LoRA
from psr.policy.self_check import check_policy, gradient_difference, layer_windows, sequence_logprobs, small_tree
from psr.policy.tiny_tokenizer import build_tokenizer
from psr.trees.packing import Plan, Unit, plan_rows
from psr.trees.step_tree import Sample

CLOSE = 1e-4
"""What counts as the same log-probability, gradient or loss in float32."""
SAMPLES, HELD_OUT, EPOCHS = 24, 8, 4
PROMPTS, NEW_TOKENS = 6, 16
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of some families")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    rows = []
    for name in options.only or FAMILIES:
        rows.append({"name": name, "architecture": FAMILIES[name][0], **measure(*FAMILIES[name])})
        Console().print(name, "->", rows[-1]["verdict"], rows[-1].get("reason", ""))
    Console(width=160).print(table(rows))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        found = {"transformers": transformers.__version__, "machine": machine(), "families": rows}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(architecture: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The row of a family: its differences and "right", or "refused" and why; "WRONG" where a difference is large."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "M0"
        torch.manual_seed(0)
        export_policy(new_policy(architecture, settings, build_tokenizer()), build_tokenizer(), folder)
        try:
            found = differences(folder)
        except PSRError as error:
            return {"verdict": "refused", "reason": str(error).replace(f" in {folder}", "")}
        # The whole model and what was trained of it: an engine that is refused leaves training as it is.
        numbers = [
            found["training"],
            found["gradient"],
            abs(found["sft_psr"] - found["sft_transformers"]),
            found["lora"],
        ]
        same = found["engine_equal"] in (None, PROMPTS) and all(
            number <= CLOSE for number in numbers if number is not None
        )
        return {"verdict": "right" if same else "WRONG", **found}


def differences(folder: Path) -> dict[str, Any]:
    """All columns of a family; what is refused on its own has the reason beside it. Raises PSRError."""
    policy = load_trainable(folder)
    training = check_policy(policy, folder, lambda row, score: score(policy, row), torch.float32)
    windows = layer_windows(policy, lambda row, score: score(policy, row))
    found: dict[str, Any] = {"training": training, "gradient": gradient_difference(policy, small_tree(policy, windows))}
    found["windows"] = sorted({window for window in windows if window})
    found["sft_psr"], found["sft_transformers"] = supervised(folder, folder.with_name("M1"))
    for name, run in (
        ("engine_equal", lambda: equal_completions(folder)),
        ("lora", lambda: exporting(folder, LoRA(4))),
    ):
        try:
            found[name] = run()
        except PSRError as error:
            found[name], found[f"{name}_refused"] = None, str(error).replace(f" in {folder}", "")
    return found


def supervised(folder: Path, out: Path) -> tuple[float, float]:
    """The loss of held-out samples after some training, by psr and by transformers on what was exported."""
    rng = random.Random(0)
    samples = [sample(rng) for _ in range(SAMPLES + HELD_OUT)]
    module = SFTModule(str(folder), str(out), lr=3e-3, warmup_share=0.0)
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=EPOCHS, **QUIET)
    trainer.fit(module, row_loader(plan(samples[HELD_OUT:]), trainer))
    held_out = row_loader(plan(samples[:HELD_OUT]), None)
    with torch.no_grad():
        by_psr = -torch.cat([module(row) for row in held_out]).mean()
        exported = transformers_model(out)
        by_transformers = -torch.cat([sequence_logprobs(exported, [one]) for one in samples[:HELD_OUT]]).mean()
    return float(by_psr), float(by_transformers)


def sample(rng: random.Random) -> Sample:
    """A task that is learnt in part: tokens that count up, from one that is longer than any window here."""
    first = rng.randrange(3, 20)
    prompt = tuple(rng.randrange(3, 36) for _ in range(rng.randint(6, 14)))
    return Sample((*prompt, first), tuple(first + i % 9 for i in range(rng.randint(9, 20))))


def plan(samples: list[Sample]) -> Plan:
    return plan_rows([(Unit(number, (one,)),) for number, one in enumerate(samples)], 8, 512, mean_over="tokens")


def transformers_model(folder: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.set_attn_implementation("eager")
    return model


def equal_completions(folder: Path) -> int:
    """How many greedy completions of the in-process engine are those of `generate`."""
    rng = random.Random(1)
    trunk = [rng.randrange(3, 36) for _ in range(12)]
    prompts = [tuple(trunk[: 4 + 2 * i] + [rng.randrange(3, 36) for _ in range(3)]) for i in range(PROMPTS)]

    async def ask() -> list[list[Completion]]:
        engine = LocalEngine()
        await engine.load_weights(folder, "M0")
        return await engine.generate(prompts, Sampling(max_new_tokens=NEW_TOKENS))

    made, model = asyncio.run(ask()), transformers_model(folder)
    expected = [generated(model, prompt) for prompt in prompts]
    return sum(
        one.token_ids == tuple(ids.tolist()[: len(one.token_ids)]) for [one], ids in zip(made, expected, strict=True)
    )


def generated(model: PreTrainedModel, prompt: tuple[int, ...]) -> Tensor:
    ids = torch.tensor([prompt])
    longest = model.generate(  # type: ignore[operator]
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False
    )
    return longest[0, len(prompt) :]


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table("family", "training", "gradient", "engine", "SFT: psr / transformers", "LoRA", "")
    for row in rows:
        if row["verdict"] == "refused":
            out.add_row(row["name"], "", "", "", "", "", f"refused: {row['reason'][:60]}")
            continue
        engine = "refused" if row["engine_equal"] is None else f"{row['engine_equal']} of {PROMPTS}"
        lora = "refused" if row["lora"] is None else f"{row['lora']:.0e}"
        losses = f"{row['sft_psr']:.4f} / {row['sft_transformers']:.4f}"
        out.add_row(
            row["name"], f"{row['training']:.0e}", f"{row['gradient']:.0e}", engine, losses, lora, row["verdict"]
        )
    right = sum(row["verdict"] == "right" for row in rows)
    out.caption = f"{right} right, {sum(row['verdict'] == 'refused' for row in rows)} refused, of {len(rows)}"
    return out


if __name__ == "__main__":
    main()
