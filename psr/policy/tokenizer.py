"""What is asked of a model folder without loading its weights: its tokenizer, what tokens end a text, its context.

Importing this module imports neither torch nor transformers; asking does. Knows folders. reading.py says what is wrong
with one.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from psr.errors import PSRError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PolicyError(PSRError, ValueError):
    """A model folder that cannot be loaded or made; the message names it."""


def check_folder(folder: str | Path) -> Path:
    """The folder, if it holds a Hugging Face model. Raises PolicyError otherwise."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise PolicyError(f"no model in {folder}: expected a Hugging Face folder with config.json")
    return folder


def load_tokenizer(folder: str | Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a Hugging Face folder; it has an EOS."""
    from psr.policy.reading import read_tokenizer

    return read_tokenizer(check_folder(folder))


def load_eos(folder: str | Path) -> frozenset[int]:
    """Every token at which the model of a Hugging Face folder ends a text; the tokenizer's EOS is one of them."""
    from psr.policy.reading import read_eos

    return read_eos(check_folder(folder))


def context_tokens(folder: str | Path) -> int:
    """Tokens of the longest sequence that the model of a Hugging Face folder takes."""
    from psr.policy.context import context_of
    from psr.policy.reading import read_config

    return context_of(read_config(check_folder(folder)))
