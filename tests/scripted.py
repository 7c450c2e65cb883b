"""An engine and a judge that follow a script, for units above them; every prompt they were given is kept."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from psr.engines.base import ANYWHERE, Completion, Origin, Sampling
from psr.engines.usage import Usage
from psr.prompts.encoder import Encoder
from psr.records import Candidate, Judgement, Problem

END = "<eos>"

Script = Callable[[str, Sampling], Sequence[str]]
"""(prompt text, sampling) -> completion texts; one that ends in END ends in EOS, one that ends in "…" is cut off."""


@dataclass
class ScriptedEngine:
    """Completes by a script. `prompts` and `samplings` are all that was asked to be generated, in order."""

    tokenizer: PreTrainedTokenizerBase
    script: Script
    choices: Callable[[str], Sequence[float]] | None = None
    version: Callable[[], str] = lambda: "M1"
    served_version: str | None = None
    usage: dict[str, Usage] = field(default_factory=dict)
    loaded: list[tuple[Path, str]] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    samplings: list[Sampling] = field(default_factory=list)

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, origin: Origin = ANYWHERE
    ) -> list[list[Completion]]:
        replies = []
        for prompt in prompts:
            text = str(self.tokenizer.decode(list(prompt)))
            self.prompts.append(text)
            self.samplings.append(sampling)
            replies.append([self._completion(one) for one in self.script(text, sampling)])
        return replies

    async def choice_logprobs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[int], origin: Origin = ANYWHERE
    ) -> list[list[float]]:
        assert self.choices is not None
        texts = [str(self.tokenizer.decode(list(prompt))) for prompt in prompts]
        self.prompts.extend(texts)
        return [list(self.choices(text)) for text in texts]

    async def load_weights(self, folder: Path, version: str) -> None:
        self.loaded.append((folder, version))
        self.served_version = version

    async def health(self) -> str:
        return self.version()

    async def sleep(self) -> None:
        self.served_version = None

    async def close(self) -> None:
        pass

    def _completion(self, text: str) -> Completion:
        final, cut_off = text.endswith(END), text.endswith("…")
        ids = self.tokenizer.encode(text.removesuffix(END).removesuffix("…"), add_special_tokens=False)
        ids += [self.tokenizer.eos_token_id] if final else []
        reason = "eos" if final else "length" if cut_off else "stop"
        plain = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        return Completion(tuple(ids), plain, reason, -1.0, self.version())  # type: ignore[arg-type]


@dataclass
class PreferenceJudge:
    """Says of two candidates that the one with the greater `worth(text)` wins; of equal ones none does."""

    worth: Callable[[str], float]
    asked: list[tuple[Problem, tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)

    async def __call__(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]:
        texts = tuple(candidate.text for candidate in candidates)
        self.asked.append((problem, tuple(steps), texts))
        judgements = []
        for i, one in enumerate(texts):
            for j, other in enumerate(texts):
                if i < j and one != other:
                    a, b = self.worth(one), self.worth(other)
                    judgements.append(Judgement(i, j, None if a == b else (i if a > b else j)))
        return judgements


def candidate(text: str, encoder: Encoder | None = None, final: bool = False) -> Candidate:
    """A candidate step; without an encoder its token ids are its characters' code points."""
    ids = encoder.completion(text, final) if encoder else tuple(map(ord, text))
    return Candidate(ids, text, -1.0, final)


def adds_up(problem: str, steps: Sequence[str], step: str) -> bool:
    """A verifier: right is an equation that holds and starts from the result before it ("13+14=27", "27-15:...=12")."""
    match = re.fullmatch(r"(\d+)([+-]\d+)(?::.*)?=(\d+)", step.strip())
    start = steps[-1].strip().rpartition("=")[2] if steps else re.split(r"[+-]", problem)[0]
    return match is not None and match[1] == start and int(match[1]) + int(match[2]) == int(match[3])
