"""Whether a completion has come to a stop text, found as its tokens come, on what they are as text together.

Decoding every row at every step would cost more than a small model, so the text that a token adds is kept. Some tokens
are only part of a character: where one is near, the tokens are decoded together. A special token counts as its name
here, as it does for an SGLang server, so that both engines end a completion with the same token. Knows the tokenizer.
Does not know models or batches.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What part of a character is decoded to."""


class Texts:
    """The texts of one tokenizer's tokens."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[int, str] = {}
        self._ends: dict[tuple[int, tuple[str, ...]], bool] = {}
        self._before = tokenizer.encode("1", add_special_tokens=False)[-1:]

    def decode(self, ids: Sequence[int], *, specials: bool = False) -> str:
        """The text of tokens, without special tokens or with their names."""
        text = self._tokenizer.decode(list(ids), skip_special_tokens=not specials, clean_up_tokenization_spaces=False)
        return str(text)

    def piece(self, token: int) -> str:
        """What a token adds to a text; alone, some tokenizers would decode it without the space that it begins with."""
        if token not in self._pieces:
            before = self.decode(self._before, specials=True)
            self._pieces[token] = self.decode([*self._before, token], specials=True).removeprefix(before)
        return self._pieces[token]

    def stopped(self, ids: Sequence[int], stops: tuple[str, ...]) -> bool:
        """Whether the last token of a text completes one of the stops."""
        if not self._may_end(ids[-1], stops):
            return False
        tail = self._tail(ids, max(len(stop.encode()) for stop in stops))
        text = "".join(map(self.piece, tail))
        if BROKEN in text:
            text = self.decode([*self._before, *tail], specials=True)
        return any(stop in text for stop in stops)

    def _may_end(self, token: int, stops: tuple[str, ...]) -> bool:
        """Whether the end of a stop may be in the token: most tokens need no further look."""
        if (token, stops) not in self._ends:
            piece = self.piece(token)
            self._ends[token, stops] = BROKEN in piece or any(stop[-1] in piece for stop in stops)
        return self._ends[token, stops]

    def _tail(self, ids: Sequence[int], longest: int) -> list[int]:
        """The last tokens that a stop of so many bytes may reach back to: one that has a text is a byte at least."""
        tail: list[int] = []
        for token in reversed(ids):
            if self.piece(token):
                tail.append(token)
            if len(tail) > longest:
                break
        return tail[::-1]
