"""Prompts as token ids: where templates, chat template and tokenizer meet.

Knows the tokenizer and the prompts. Does not know engines, search or training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from psr.errors import PSRError, UsageError
from psr.prompts.templates import VERDICTS, Prompts
from psr.prompts.token_ids import TokenIds
from psr.records import Candidate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class StepBoundaryError(PSRError, ValueError):
    """The tokenizer merges the end of a step with the start of the next, so that steps cannot be separated."""


@dataclass(frozen=True)
class Encoder:
    """Encodes prompts for one tokenizer.

    Args:
        shots: few-shot judge prompts and replies before every judge prompt, for a policy not trained to judge.

    Raises:
        StepBoundaryError: the tokenizer has no token boundary between `step_separator` and `step_marker`.
        UsageError: `prompts.chat` is set, and the tokenizer has no chat template.
    """

    tokenizer: "PreTrainedTokenizerBase"
    prompts: Prompts
    shots: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.prompts.chat and self.tokenizer.chat_template is None:
            raise UsageError(
                f"prompts.chat is true, and the tokenizer of {self.tokenizer.name_or_path} has no chat template: leave "
                "it out, or take a chat model"
            )
        separator, marker = self.prompts.step_separator, self.prompts.step_marker
        ids = self.plain("x" + separator + marker + "x")
        before = self.text(self.plain("x" + separator))
        if marker and all(self.text(ids[:end]) != before for end in range(len(ids) + 1)):
            raise StepBoundaryError(
                f"the tokenizer joins the step separator {separator!r} and the step marker {marker!r} into one token: "
                "choose a prompts.step_marker that starts a token"
            )

    @cached_property
    def _ids(self) -> TokenIds:
        return TokenIds(self.tokenizer)

    def plain(self, text: str) -> list[int]:
        """The ids of a text in the middle of a sequence: no special tokens are added, and none is read out of it."""
        return list(self._ids.middle(text))

    def prompt(self, text: str, shots: Sequence[tuple[str, str]] = ()) -> tuple[int, ...]:
        """The ids of a prompt, with the special tokens (or the chat template) that begin one, after `shots`.

        What `text` and `shots` have from elsewhere than a template has gone through `TokenIds.as_text`.
        """
        if not self.prompts.chat:
            return self._ids.beginning("".join(f"{asked}{reply}\n\n" for asked, reply in shots) + text)
        turns = [(("user", asked), ("assistant", reply)) for asked, reply in shots]
        roles = [*(turn for both in turns for turn in both), ("user", text)]
        return self._ids.conversation([{"role": role, "content": content} for role, content in roles])

    def reason(self, problem: str) -> tuple[int, ...]:
        return self.prompt(self.prompts.reason_prompt(self._ids.as_text(problem)))

    def reason_fits(self, problem: str, context: int) -> bool:
        """Whether the prompt of a problem leaves room for an answer in a context of so many tokens."""
        text = self.prompts.reason_prompt(self._ids.as_text(problem))
        # An ASCII character is at most one token, so that the length tells of nearly all prompts, without encoding
        # them. Half of the context is left for what a tokenizer may put before a text.
        if not self.prompts.chat and text.isascii() and len(text) < context // 2:
            return True
        return len(self.prompt(text)) < context

    def judge(self, problem: str, steps: str, a: str, b: str) -> tuple[int, ...]:
        return self.prompt(self.judge_text(problem, steps, a, b), self.shots)

    def judge_text(self, problem: str, steps: str, a: str, b: str) -> str:
        """The text of a judge prompt, as `prompt` takes it."""
        return self.prompts.judge_prompt(*map(self._ids.as_text, (problem, steps, a, b)))

    def shot(self, problem: str, steps: str, a: str, b: str, reply: str) -> tuple[str, str]:
        """A judge prompt and the reply to it, for `shots`."""
        return self.judge_text(problem, steps, a, b), self._ids.as_text(reply)

    def score(self, problem: str, steps: str, response: str) -> tuple[int, ...]:
        return self.prompt(self.prompts.score_prompt(*map(self._ids.as_text, (problem, steps, response))))

    def completion(self, text: str, final: bool = True) -> tuple[int, ...]:
        """The ids of a completion; only the end of a solution or judgement carries EOS."""
        return (*self.plain(text), *([self.tokenizer.eos_token_id] if final else []))

    def verdict_choices(self) -> tuple[tuple[int, ...], tuple[int, int]]:
        """The tokens that both verdicts begin with, and the two tokens at which they differ (verdicts "logprob")."""
        first, second = (self.plain(self.prompts.verdict_text(label)) for label in VERDICTS)
        same = next(i for i, (x, y) in enumerate(zip(first, second, strict=False)) if x != y)
        return tuple(first[:same]), (first[same], second[same])

    def step(self, token_ids: Sequence[int], logprob: float, finish_reason: str) -> Candidate | None:
        """The completion cut at the end of its step, or None where it was cut off before that.

        The end of the step keeps the separator and drops the marker of the step that follows.
        """
        ids = list(token_ids)
        if finish_reason == "length":
            return None
        before, stop, _ = self.text(ids).partition(self.prompts.step_stop)
        if finish_reason == "stop" and self.prompts.step_marker and stop:
            while len(self.text(ids)) > len(before + self.prompts.step_separator):  # the marker may be several tokens
                ids.pop()
        final = finish_reason == "eos"  # the last token, which may be one that has a text
        return Candidate(tuple(ids), self.text(ids[:-1] if final else ids), logprob, final)

    def text(self, token_ids: Sequence[int]) -> str:
        return self._ids.text(token_ids)
