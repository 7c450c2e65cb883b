"""Texts as token ids, by where they stand: at the beginning of a prompt, or in the middle of a text.

Tokenizers differ in what they put around a text: a token that begins it, one that ends it, a space before it. Only the
first belongs in a prompt, and none of them in the middle. Knows tokenizers. Does not know prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEFORE = "\n"
"""What a text is put after to see its ids in the middle; few tokenizers join it with what follows."""


@dataclass(frozen=True)
class TokenIds:
    """The ids of texts for one tokenizer."""

    tokenizer: "PreTrainedTokenizerBase"

    def beginning(self, text: str) -> tuple[int, ...]:
        """The ids of a text that begins a prompt: after the special tokens that begin one, and without an end."""
        return (*self._start, *self._plain(text))

    def middle(self, text: str) -> tuple[int, ...]:
        """The ids of a text that follows another one: no special tokens, and no space that is not in the text."""
        if self._spaces:
            before, both = self._plain(BEFORE), self._plain(BEFORE + text)
            if both[: len(before)] == before:
                return tuple(both[len(before) :])
        return tuple(self._plain(text))

    def text(self, token_ids: Sequence[int]) -> str:
        """Without special tokens."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @cached_property
    def _start(self) -> list[int]:
        """What the tokenizer puts before a text."""
        plain, whole = self._plain("x"), self.tokenizer.encode("x")
        starts = [i for i in range(len(whole)) if whole[i : i + len(plain)] == plain]
        return whole[: starts[0]] if starts else []

    @cached_property
    def _spaces(self) -> bool:
        """Whether the tokenizer puts a space before every text, as SentencePiece does for Llama 2."""
        before, both = self._plain(BEFORE), self._plain(BEFORE + "x")
        return both[: len(before)] == before and both[len(before) :] != self._plain("x")

    def _plain(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)
