"""Texts as token ids, by where they stand: at the beginning of a prompt, or in the middle of a text.

Tokenizers differ in what they put around a text: a token that begins it, one that ends it, a space before it. Only the
first belongs in a prompt, and none of them in the middle.

A text that spells a special token, such as "<|im_end|>", is a text all the same: a problem must not end its own prompt.
Only templates may name special tokens, so what is put into one is marked first (`as_text`). Knows tokenizers. Does not
know prompts.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEFORE = "\n"
"""What a text is put after to see its ids in the middle; few tokenizers join it with what follows."""
OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Around what is no special token within a template. Unicode reserves these two for such use, and no text has them."""
MARKED = re.compile(f"{OPEN}(.*?){CLOSE}", re.DOTALL)
NO_MARKS = {ord(mark): "\N{REPLACEMENT CHARACTER}" for mark in (OPEN, CLOSE)}


@dataclass(frozen=True)
class TokenIds:
    """The ids of texts for one tokenizer."""

    tokenizer: "PreTrainedTokenizerBase"

    def as_text(self, text: str) -> str:
        """What somebody wrote, to be put into a template: the special tokens that it spells are marked as text."""
        return self._special.sub(lambda found: f"{OPEN}{found[0]}{CLOSE}", text.translate(NO_MARKS))

    def beginning(self, text: str) -> tuple[int, ...]:
        """The ids of a text that begins a prompt: after the special tokens that begin one, and without an end."""
        return (*self._start, *self._of_template(text))

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """The ids of messages in the tokenizer's chat template, up to where the assistant answers."""
        turns = [dict(message) for message in messages]
        rendered = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return tuple(self._of_template(str(rendered)))

    def middle(self, text: str) -> tuple[int, ...]:
        """The ids of a text that follows another one: no special tokens, and no space that is not in the text."""
        return tuple(self._after_another(text, literal=True))

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

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Any special token, spelled out; the longest first, where one begins another."""
        added = self.tokenizer.added_tokens_decoder.values()
        texts = {*self.tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
        return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)) or "(?!)")

    def _of_template(self, text: str) -> list[int]:
        """The ids of a template that is filled in; what is marked in it is no special token."""
        first, *rest = MARKED.split(text)  # by turns not marked and marked
        ids = self._plain(first)
        for number, part in enumerate(rest):
            ids += self._after_another(part, literal=number % 2 == 0)
        return ids

    def _after_another(self, text: str, literal: bool) -> list[int]:
        if self._spaces:
            before, both = self._plain(BEFORE, literal), self._plain(BEFORE + text, literal)
            if both[: len(before)] == before:
                return both[len(before) :]
        return self._plain(text, literal)

    def _plain(self, text: str, literal: bool = False) -> list[int]:
        """No special tokens around the text; with `literal`, none of those either that it spells."""
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=literal)
