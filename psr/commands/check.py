"""`psr model check`: what a model folder is, and whether psr trains, serves and exports it as what it is.

By numbers: everything is computed by psr and by transformers' own forward pass, on a few sequences of random tokens.
"""

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from psr.errors import PSRError
from psr.policy.lora import LoRA

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CACHE_BYTES = 2**33
"""Enough for one sequence of any usual context; so much is taken only where it is used."""
GRADIENT = 1e-3
"""Share of the largest gradient that rounding explains in float32."""


class CheckFailed(PSRError, RuntimeError):
    """Something of the model would be computed wrongly; the message says what."""


def check(folder: Path, lora: LoRA | None = None) -> None:
    """Say what a model is, and check it before anything is spent on it; exits with 1 if it cannot be used.

    Differences are the largest ones of log-probabilities between psr and transformers' own forward pass, in float32.

    Args:
        folder: Hugging Face folder.
        lora: also check adapters, their merging and its export; `{}` for the defaults.
    """
    for name, text in facts(folder).items():
        print(f"{name:<13} {text}")
    checks: dict[str, Callable[[], str]] = {
        "training": lambda: training(folder),
        "engine": lambda: f"log-probability {serving(folder):.1e}",
        "export": lambda: f"log-probability {exporting(folder):.1e}",
    }
    if lora is not None:
        checks["LoRA"] = lambda: f"log-probability {exporting(folder, lora):.1e}, merged and exported"
    failed: dict[str, str] = {}
    for name, run in checks.items():
        if "training" in failed and name != "engine":  # nothing would be exported
            continue
        try:
            print(f"{name:<13} right: {run()}")
        except PSRError as error:
            failed[name] = str(error)
            print(f"{name:<13} WRONG")
    if failed:
        raise CheckFailed("; ".join(failed.values()))


def facts(folder: Path) -> dict[str, str]:
    """What the folder's files say, by name."""
    from psr.policy.context import context_of
    from psr.policy.reading import read_config
    from psr.policy.tokenizer import check_folder, load_eos, load_tokenizer

    config, tokenizer = read_config(check_folder(folder)), load_tokenizer(folder)
    text, trained = config.get_text_config(), tokenizer.eos_token_id
    ends = [
        f"{token} {tokenizer.convert_ids_to_tokens(token)!r}"
        + (" (trained)" if token == trained else " (only ends what is generated)")
        for token in sorted(load_eos(folder))
    ]
    return {
        "family": f"{config.model_type}, {', '.join(config.architectures or ['no architecture named'])}",
        "dtype": str(config.dtype or "not named").removeprefix("torch."),
        "vocabulary": f"{len(tokenizer)} tokens, {text.vocab_size} embeddings",
        "context": f"{context_of(config)} tokens",
        "chat template": "yes" if tokenizer.chat_template else "no",
        "ends": ", ".join(ends),
    }


def training(folder: Path) -> str:
    """The differences of log-probability and gradient, and the windows. Raises UnsupportedModel."""
    import torch

    from psr.policy.folder import load_trainable
    from psr.policy.masks import UnsupportedModel
    from psr.policy.self_check import check_policy, gradient_difference, layer_windows, small_tree

    policy = load_trainable(folder)
    found = check_policy(policy, folder, lambda row, score: score(policy, row), torch.float32)
    windows = layer_windows(policy, lambda row, score: score(policy, row))
    gradient = gradient_difference(policy, small_tree(policy, windows))
    if not gradient <= GRADIENT:
        raise UnsupportedModel(f"psr cannot train {folder}: gradients differ by {gradient:.1e} of the largest one")
    told = [
        f"{count} layers {f'of {window} tokens' if window else 'of all'}" for window, count in Counter(windows).items()
    ]
    return f"log-probability {found:.1e}, gradient {gradient:.1e}; {', '.join(told)}"


def serving(folder: Path) -> float:
    """The difference of log-probability in the in-process engine. Raises EngineError."""
    from psr.engines.local.core import Core
    from psr.engines.local.self_check import check_core
    from psr.policy.folder import load_policy
    from psr.policy.tokenizer import load_eos, load_tokenizer

    model = load_policy(folder).eval()
    return check_core(Core(model, load_tokenizer(folder), load_eos(folder), max_batch=4, cache_bytes=CACHE_BYTES))


def exporting(folder: Path, lora: LoRA | None = None) -> float:
    """The difference of log-probability of an export, of adapters if there are some. Raises PolicyError, LoRAError."""
    from psr.policy.folder import export_policy, load_trainable
    from psr.policy.self_check import check_written
    from psr.policy.tokenizer import load_tokenizer

    policy = load_trainable(folder, lora)
    if lora is not None:
        change_adapters(policy)
    with tempfile.TemporaryDirectory() as place:
        export_policy(policy, load_tokenizer(folder), Path(place) / "exported")
        return check_written(policy, Path(place) / "exported")


def change_adapters(policy: "PreTrainedModel") -> None:
    """As training would: new adapters change nothing, and would hide that they are not merged."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
