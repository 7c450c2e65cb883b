"""The quickstart's tokenizer: single characters, digits one by one, and a few words as one token each.

A real `PreTrainedTokenizerFast`, saved and loaded like any other. Knows nothing of prompts or problems.
"""

import re
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = ["\\boxed{", "[[", "]]"]
CHARACTERS = "\n 0123456789+-=:;,.?}{()*/ABabcdefgh"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of about 40 tokens with <pad>, <eos> and <unk>; decoding gives back the exact text."""
    vocabulary = ["<pad>", "<eos>", "<unk>", *WORDS, *CHARACTERS]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>"))
    words = "|".join(map(re.escape, WORDS))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"{words}|[\\s\\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def save_tokenizer(folder: str | Path) -> None:
    build_tokenizer().save_pretrained(str(folder))
