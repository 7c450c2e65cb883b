"""The tokenizer of a model folder, and the check that a folder holds a model.

Many modules need only these, so transformers is imported when a tokenizer is loaded, and torch not at all.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from psr.errors import PSRError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PolicyError(PSRError, ValueError):
    """A model folder that cannot be loaded or created; the message names it."""


def check_folder(folder: str | Path) -> Path:
    """The folder, if it holds a Hugging Face model. Raises PolicyError otherwise."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise PolicyError(f"no model in {folder}: expected a Hugging Face folder with config.json")
    return folder


def load_tokenizer(folder: str | Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(check_folder(folder)), local_files_only=True)
    if tokenizer.eos_token_id is None:
        raise PolicyError(f"the tokenizer in {folder} has no EOS token: a solution could not end")
    return tokenizer
