"""A row: one completion being decoded, or one prompt whose next token is scored. Knows where a completion ends."""

from dataclasses import dataclass, field

import numpy as np

from psr.engines.base import FinishReason, Sampling
from psr.engines.local.texts import Texts


@dataclass(eq=False)  # rows are looked up by identity: two of them may well hold the same tokens
class Row:
    """A request (the first four fields) and its result so far.

    Args:
        prompt: token ids.
        sampling: how to decode; unused when `choices` are given.
        uniforms: one draw from [0, 1) for every token that may be generated.
        choices: tokens whose log-probabilities after the prompt are asked for; empty for a completion.
        computed: tokens of the prompt that were prefilled for this row; the others were in the prefix cache.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    uniforms: np.ndarray
    choices: tuple[int, ...] = ()
    computed: int = 0
    scores: list[float] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    finish_reason: FinishReason | None = None

    @property
    def reserved(self) -> int:
        """Most tokens whose keys and values the row may need: its prompt and the longest completion."""
        return len(self.prompt) + len(self.uniforms)

    def append(self, token: int, logprob: float, eos: frozenset[int], texts: Texts) -> None:
        """Take the next token. Sets `finish_reason` where the completion ends."""
        self.token_ids.append(token)
        self.logprob += logprob
        if token in eos:
            self.finish_reason = "eos"
            return
        stops = self.sampling.stop
        if stops and texts.stopped(self.token_ids, stops):
            self.finish_reason = "stop"
        elif len(self.token_ids) >= len(self.uniforms):
            self.finish_reason = "length"
