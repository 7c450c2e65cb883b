"""Whether a completion has come to a stop text, found as its tokens come, on what they are as text together.

Decoding every row at every step would cost more than a small model, so the text that a token adds is kept. Some tokens
are only part of a character: where one is near, the tokens are decoded together. Knows the tokenizer. Does not know
models or batches.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What part of a character is decoded to."""


class Texts:
    """The texts of one tokenizer's tokens; special tokens have none."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[int, str] = {}
        self._before = tokenizer.encode("1", add_special_tokens=False)[-1:]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def piece(self, token: int) -> str:
        """What a token adds to a text; alone, some tokenizers would decode it without the space that it begins with."""
        if token not in self._pieces:
            self._pieces[token] = self.decode([*self._before, token]).removeprefix(self.decode(self._before))
        return self._pieces[token]

    def tail(self, tail: Sequence[int], token: int, stops: Sequence[str]) -> tuple[int, ...]:
        """The last tokens of a text that a stop may reach back to, once `token` has followed `tail`."""
        if not self.piece(token):
            return tuple(tail)
        longest = max(len(stop.encode()) for stop in stops)  # a token with a text is a byte at least
        return (*tail[-longest:], token)

    def stopped(self, tail: Sequence[int], stops: Sequence[str]) -> bool:
        """Whether there is a stop in the text of these tokens."""
        text = "".join(map(self.piece, tail))
        if BROKEN in text:
            text = self.decode([*self._before, *tail])
        return any(stop in text for stop in stops)
