"""The Engine protocol: token ids in, completions out, asynchronously.

An engine knows nothing of steps, judges or problems. Every completion carries the version of the weights that generated
it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from psr.bounds import Count, CountOrNone, Nucleus, Seed, Temperature, bounded
from psr.engines.usage import Usage
from psr.errors import PSRError

FinishReason = Literal["eos", "stop", "length"]


class EngineError(PSRError, RuntimeError):
    """The engine cannot do what was asked; the message says what and what to change."""


class PromptTooLong(EngineError):
    """A prompt leaves no room for one new token in the model's context."""


@bounded("sampling")
@dataclass(frozen=True)
class Sampling:
    """How completions are sampled.

    Args:
        max_new_tokens: completions are cut off at this many tokens (finish reason "length").
        temperature: 0 is greedy.
        top_p: nucleus sampling, applied after the temperature.
        n: completions per prompt.
        seed: together with the prompt and the index of the completion, it determines what is sampled.
        stop: texts that end a completion as soon as they appear; they remain part of it (finish reason "stop").
    """

    max_new_tokens: CountOrNone = 256
    temperature: Temperature = 0.0
    top_p: Nucleus = 1.0
    n: Count = 1
    seed: Seed = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completion:
    """`token_ids` include what ended them, a token (finish reason "eos") or the stop text; `text` only the latter.

    Any token ends a text that the tokenizer or the model's generation config calls an EOS. `logprob` is the sum over
    the tokens at the sampling temperature.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    logprob: float
    weights_version: str


@dataclass(frozen=True)
class Origin:
    """Where requests come from.

    Args:
        key: requests with the same key go to the same server, whose prefix cache holds what they have in common.
        kind: what the requests are counted as in `Engine.usage`.
    """

    key: str = ""
    kind: str = "other"


ANYWHERE = Origin()


@runtime_checkable
class Engine(Protocol):
    """What search, judging and evaluation ask of a model server."""

    @property
    def served_version(self) -> str | None:
        """The version given to the last `load_weights`, None before."""
        ...

    @property
    def usage(self) -> Mapping[str, Usage]:
        """What the requests of every kind have cost since the engine was created."""
        ...

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, origin: Origin = ANYWHERE
    ) -> list[list[Completion]]:
        """`sampling.n` completions for each prompt, in order. Raises PromptTooLong, EngineError."""
        ...

    async def choice_logprobs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[int], origin: Origin = ANYWHERE
    ) -> list[list[float]]:
        """log p(choice | prompt) of each single-token choice, for each prompt: shape (prompts, choices)."""
        ...

    async def load_weights(self, folder: Path, version: str) -> None:
        """Serve the Hugging Face folder from now on, under the name `version`."""
        ...

    async def sleep(self) -> None:
        """Release the memory of weights and cache to the trainer, until the next `load_weights`."""
        ...

    async def health(self) -> str:
        """The version of the weights being served. Raises EngineError if there are none."""
        ...

    async def close(self) -> None:
        """Release everything that the engine holds."""
        ...
