"""Reading a Hugging Face folder, all of it or with one line that says what is wrong with it.

Transformers initialises at random what a folder lacks, and goes on. Knows files and transformers' loaders. Does not
know what a model is used for.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from psr.policy.tokenizer import PolicyError

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
LFS_POINTER = b"version https://git-lfs"
UNREADABLE = (OSError, ValueError, RuntimeError, LookupError, TypeError, ImportError, EOFError, SafetensorError)
"""What transformers raises on folders that it cannot read, by what is wrong with them."""


def read_config(folder: Path) -> PreTrainedConfig:
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.stat().st_size < 1024 and file.read_bytes().startswith(LFS_POINTER):
            raise PolicyError(f"{file} is a Git LFS pointer, not the file itself: run `git lfs pull` in {folder}")
    try:
        config = AutoConfig.from_pretrained(str(folder), **LOCAL)
    except UNREADABLE as error:
        raise PolicyError(f"{folder}: its config.json cannot be used: {one_line(error)}") from error
    if config.to_dict().get("quantization_config"):
        raise PolicyError(f"{folder}: its weights are quantized: take the model that they come from")
    return config


def read_model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model with the weights of the folder and no others."""
    read_config(folder)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, output_loading_info=True, **LOCAL)
    except UNREADABLE as error:
        raise PolicyError(f"{folder}: its weights cannot be loaded: {one_line(error)}") from error
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise PolicyError(
            f"{folder} lacks {len(missing)} of the weights of a {model.config.model_type}, {missing[0]} first: is it "
            "complete, and a causal language model?"
        )
    assert isinstance(model, PreTrainedModel)
    return model


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer. Raises PolicyError where it has no EOS, or tokens for which the model has no embedding."""
    config = read_config(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **LOCAL)
    except UNREADABLE as error:
        raise PolicyError(f"{folder}: its tokenizer cannot be loaded: {one_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise PolicyError(f"the tokenizer in {folder} has no EOS token: a solution could not end")
    last, rows = max(tokenizer.get_vocab().values()), config.get_text_config().vocab_size
    if last >= rows:
        token = tokenizer.convert_ids_to_tokens(last)
        raise PolicyError(
            f"the tokenizer in {folder} has a token {last} ({token!r}), and the model embeddings for {rows}: resize "
            "the model's embeddings to the tokenizer"
        )
    return tokenizer


def read_eos(folder: Path) -> frozenset[int]:
    """Every token at which a text ends: the tokenizer's EOS, and those that the model's generation config names."""
    named: list[Any] = [read_tokenizer(folder).eos_token_id]
    for name in ("generation_config.json", "config.json"):  # the second speaks where the first is not there
        if (folder / name).is_file():
            more = json.loads((folder / name).read_text()).get("eos_token_id")
            named += more if isinstance(more, list) else [more]
            break
    return frozenset(int(token) for token in named if token is not None)


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
