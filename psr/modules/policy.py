"""The policy: a causal language model as a plain Hugging Face folder, loaded, made and exported.

Knows transformers. Does not know losses, Lightning, engines or what the policy is asked.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


class PolicyError(ValueError):
    """A model folder that cannot be loaded or made; the message names it."""


def check_folder(folder: str | Path) -> Path:
    """The folder, if it holds a Hugging Face model. Raises PolicyError otherwise."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise PolicyError(f"no model in {folder}: expected a Hugging Face folder with config.json")
    return folder


def load_policy(
    folder: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """The model of a Hugging Face folder, in `dtype`, on `device`."""
    model = AutoModelForCausalLM.from_pretrained(str(check_folder(folder)), dtype=dtype, local_files_only=True)
    assert isinstance(model, PreTrainedModel)
    torch.nn.Module.to(model, device)
    return model


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(str(check_folder(folder)), local_files_only=True)
    if tokenizer.eos_token_id is None:
        raise PolicyError(f"the tokenizer in {folder} has no EOS token: a solution could not end")
    return tokenizer


def new_policy(architecture: str, settings: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A model with random weights: `architecture` is a transformers model type ("qwen2", "llama")."""
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **settings,
    )
    model = AutoModelForCausalLM.from_config(config)
    assert isinstance(model, PreTrainedModel)
    return model


def completion_logits(policy: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (rows, kept, vocabulary) over the last `kept` positions, with the `input_ids` and `completion_mask` there.

    Kept is what the longest completion needs. The logits of the prompts, most of a batch, are never computed: with a
    large vocabulary they would take more memory than the model.
    """
    ids, mask = batch["input_ids"], batch["completion_mask"]
    kept = ids.shape[1] - int(mask.argmax(-1).min()) + 1  # one position before a completion predicts its first token
    logits = policy(input_ids=ids, attention_mask=batch["attention_mask"], use_cache=False, logits_to_keep=kept).logits
    return logits, ids[:, -kept:], mask[:, -kept:]


def export_policy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Write a folder that transformers, SGLang and vLLM load; it appears under its name only when it is complete."""
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial))
    tokenizer.save_pretrained(str(partial))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
