"""An engine wrapper that counts tokens: wrapped around an engine for one problem, it says what that problem cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from psr.engines.base import ANYWHERE, Completion, Engine, Origin, Sampling
from psr.engines.usage import Usage


class Meter:
    """Passes everything on to `engine`. Prompt tokens count whether they are cached or not."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.prompt_tokens = self.generated_tokens = 0

    @property
    def served_version(self) -> str | None:
        return self._engine.served_version

    @property
    def usage(self) -> Mapping[str, Usage]:
        return self._engine.usage

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, origin: Origin = ANYWHERE
    ) -> list[list[Completion]]:
        replies = await self._engine.generate(prompts, sampling, origin)
        self.prompt_tokens += sampling.n * sum(map(len, prompts))
        self.generated_tokens += sum(len(one.token_ids) for completions in replies for one in completions)
        return replies

    async def choice_logprobs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[int], origin: Origin = ANYWHERE
    ) -> list[list[float]]:
        replies = await self._engine.choice_logprobs(prompts, choices, origin)
        self.prompt_tokens += sum(map(len, prompts))
        return replies

    async def load_weights(self, folder: Path, version: str) -> None:
        await self._engine.load_weights(folder, version)

    async def sleep(self) -> None:
        await self._engine.sleep()

    async def health(self) -> str:
        return await self._engine.health()

    async def close(self) -> None:
        await self._engine.close()
