"""The prompts of a process reward model (PRM) as token ids, and the two tokens with which it answers.

    problem, step 1, step 2, ... -> "+" or "-" as the next token: whether the last step is right.

Every step is encoded by itself and ends in a line break, so that token boundaries are the same in training, where the
labels of all steps are read off one sequence, and in search, where one step is asked for. Knows the tokenizer and the
template; no engine, no training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from psr.prompts.encoder import StepBoundaryError
from psr.prompts.templates import STEP_MARK, fill
from psr.prompts.token_ids import TokenIds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


TEMPLATE = "{problem}\n\n"
LABELS = ("+", "-")


@dataclass(frozen=True)
class PRMEncoder:
    """Encodes problems and steps for one tokenizer.

    Args:
        tokenizer: the PRM's tokenizer.
        template: the text before the first step; placeholder {problem}.

    Raises:
        StepBoundaryError: "+" or "-" is no single token.
    """

    tokenizer: "PreTrainedTokenizerBase"
    template: str = TEMPLATE

    def __post_init__(self) -> None:
        for label in LABELS:
            if len(self._ids.middle(label)) != 1:
                raise StepBoundaryError(f"the tokenizer has no single token for {label!r}: take another model")

    @property
    def labels(self) -> tuple[int, int]:
        """The tokens of "+" and "-"."""
        plus, minus = (self._ids.middle(label)[0] for label in LABELS)
        return plus, minus

    def head(self, problem: str) -> tuple[int, ...]:
        """The ids before the first step, with the special tokens that begin a text."""
        return self._ids.beginning(fill(self.template, problem=self._ids.as_text(problem)))

    def step(self, text: str) -> tuple[int, ...]:
        """The ids of one step, without a mark such as "Step 2:"; at the last of them the label is predicted."""
        return self._ids.middle(STEP_MARK.sub("", text.strip()) + "\n")

    def question(self, problem: str, steps: Sequence[str]) -> tuple[int, ...]:
        """The prompt whose next token says whether the last of `steps` is correct."""
        return self.head(problem) + tuple(token for step in steps for token in self.step(step))

    @cached_property
    def _ids(self) -> TokenIds:
        return TokenIds(self.tokenizer)
