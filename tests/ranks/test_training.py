"""Two processes train as one does: DDP, FSDP2, activation checkpointing, tensor parallelism, LoRA, a reward model."""

import csv
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from psr.files.jsonl import write_jsonl
from psr.policy.folder import export_policy, load_policy, new_policy
from psr.policy.tiny_tokenizer import build_tokenizer
from psr.policy.tokenizer import load_tokenizer
from tests.conftest import TINY
from tests.ranks.launch import DDP, SHARDED, launch

pytestmark = pytest.mark.slow

CONFIG = """
model: {class_path: SFTModule, init_args: {lr: 1.0e-3}}
data:
  class_path: SFTDataModule
  init_args:
    {ift: ift.jsonl, val_ift: val.jsonl, batch_size: 6, row_tokens: 60,
     prompts: {reason: "{problem}\\n", step_marker: "", step_separator: "\\n"}}
trainer:
  {accelerator: cpu, max_epochs: 1, gradient_clip_val: 1.0, enable_checkpointing: false, log_every_n_steps: 1,
   enable_model_summary: false, enable_progress_bar: false, logger: lightning.pytorch.loggers.CSVLogger}
"""
TRAINER = CONFIG.partition("trainer:")[2]
PRM_CONFIG = f"""
model: {{class_path: PRMModule, init_args: {{lr: 1.0e-3}}}}
data:
  class_path: PRMDataModule
  init_args: {{trajectories: rated.jsonl, val_share: 0.25, batch_size: 6, row_tokens: 60, template: "{{problem}}\\n"}}
trainer:{TRAINER}"""
ROWS = 63
"""Of the embeddings of "padded", whose tokenizer has fewer tokens and an added one; two ranks hold unequal shards."""
ADAPTERS = ["--model.init_args.lora", "{rank: 4}"]
# name: (policy, options); the fit in one process that each is compared with is named below
FITS: dict[str, tuple[str, list[str]]] = {
    "ddp": ("qwen2", DDP),
    "sharded": ("qwen2", SHARDED),
    "checkpointed": ("qwen2", [*SHARDED, "--model.init_args.checkpoint_activations", "true"]),
    "divided": ("qwen2", [*SHARDED, "--trainer.strategy.tensor_parallel_size", "2"]),
    "tied": ("llama", SHARDED),
    "adapters": ("llama", [*SHARDED, *ADAPTERS]),
    "padded": ("padded", SHARDED),
    "prm": ("llama", SHARDED),
    "prm-ddp": ("llama", DDP),
}
ALONE = {"qwen2-alone": ("qwen2", []), "llama-alone": ("llama", []), "adapters-alone": FITS["adapters"]}
ALONE |= {"prm-alone": ("llama", []), "padded-alone": ("padded", [])}


def fit(name: str, policy: str, options: list[str]) -> list[str]:
    logs = ["--trainer.logger.save_dir", name, "--trainer.logger.name", "logs"]
    places = ["--model.init_args.model", policy, "--model.init_args.export_to", f"{name}/M1"]
    config = "prm.yaml" if name.startswith("prm") else "sft.yaml"
    return ["fit", "--config", config, *places, "--trainer.default_root_dir", name, *logs, *options]


def policies_and_samples(folder: Path) -> None:
    """Policies "qwen2", "llama" and "padded", ift.jsonl and val.jsonl."""
    tokenizer, rng = build_tokenizer(), random.Random(0)
    torch.manual_seed(0)
    for architecture, tied in (("qwen2", False), ("llama", True)):
        settings = {**TINY, "tie_word_embeddings": tied}
        export_policy(new_policy(architecture, settings, tokenizer), tokenizer, folder / architecture)
    padded = new_policy("llama", {**TINY, "tie_word_embeddings": True}, tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    padded.resize_token_embeddings(ROWS)
    export_policy(padded, tokenizer, folder / "padded")

    def steps() -> str:
        return "\n".join(f"{rng.randrange(99)}+{rng.randrange(99)}=7" for _ in range(rng.randint(1, 4)))

    rows = [{"id": str(i), "problem": f"{rng.randrange(99)}+1", "solution": steps()} for i in range(50)]
    write_jsonl(folder / "ift.jsonl", rows)
    write_jsonl(folder / "val.jsonl", rows[:7])  # an odd number of rows: one rank gets an empty one


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    policies_and_samples(folder)
    (folder / "sft.yaml").write_text(CONFIG)
    (folder / "prm.yaml").write_text(PRM_CONFIG)
    write_jsonl(folder / "rated.jsonl", [rated(number) for number in range(40)])
    launch(folder, 1, *(fit(name, *settings) for name, settings in ALONE.items()))
    launch(folder, 2, *(fit(name, *settings) for name, settings in FITS.items()))
    return folder


def rated(number: int) -> dict[str, Any]:
    """A trajectory of two steps, each with a good and a bad candidate."""
    texts = [(f"{number}+{step}=7", f"{number}-{step}=7") for step in (1, 2)]
    sides = [(dict(text=good, rating=1, chosen=True), dict(text=bad, rating=-1)) for good, bad in texts]
    return {"id": str(number), "problem": f"{number}+1", "steps": [{"completions": list(some)} for some in sides]}


def curves(folder: Path) -> dict[str, list[float]]:
    with (folder / "logs" / "version_0" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("train/loss", "train/grad_norm", "val/loss", "val/token_accuracy", "val/accuracy", "val/auroc")
    return {name: [float(row[name]) for row in rows if row[name]] for name in names if name in rows[0]}


def weights(folder: Path) -> dict[str, Tensor]:
    return load_policy(folder / "M1").state_dict()


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


@pytest.mark.parametrize("name", FITS)
def test_curves_and_weights_are_those_of_one_process(fits: Path, name: str):
    kind = name.partition("-")[0]
    alone = fits / f"{kind if kind in ('adapters', 'prm') else FITS[name][0]}-alone"
    expected, found = curves(alone), curves(fits / name)
    assert len(expected["train/loss"]) >= 9 and len(expected["val/loss"]) == 1
    for curve, values in expected.items():
        assert found[curve] == pytest.approx(values, rel=1e-4, abs=1e-5), curve
    assert distance(weights(fits / name), weights(alone)) < 2e-5
    assert distance(weights(alone), load_policy(fits / FITS[name][0]).state_dict()) > 1e-3, "or nothing was learnt"


def test_larger_embeddings_and_an_added_pad_token_survive_sharded_training(fits: Path):
    exported = load_policy(fits / "padded" / "M1")
    assert exported.get_input_embeddings().weight.shape[0] == ROWS > len(load_tokenizer(fits / "padded" / "M1"))
    assert exported.get_input_embeddings().weight is exported.get_output_embeddings().weight
    assert load_tokenizer(fits / "padded" / "M1").pad_token == "<padding>"
    ids = torch.arange(40)[None]
    with torch.no_grad():
        found, expected = (load_policy(fits / name / "M1").eval()(ids).logits for name in ("padded", "padded-alone"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_an_export_of_shards_in_several_files_is_the_same_model(fits: Path, tmp_path: Path):
    from psr.policy.sharding import export_shards

    policy = load_policy(fits / "llama")
    export_shards(policy, build_tokenizer(), tmp_path / "M1", torch.float32, torch.device("cpu"), True, 9_000)
    assert len(list((tmp_path / "M1").glob("*.safetensors"))) > 3
    assert distance(load_policy(tmp_path / "M1").state_dict(), policy.state_dict()) == 0
    assert not (tmp_path / "M1.partial").exists()
