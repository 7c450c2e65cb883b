"""What a search is compared with: the same requests on transformers' own generation, as engines of the same protocol.

`PlainEngine` is what public code does: `model.generate` with the full prompt of every request. `ContinuousEngine` is
transformers' continuous batching. `Replay` lets an engine that cannot draw by our seeds pay for candidates, and hands
on those of another search, so that all judge the same.
"""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from transformers import (
    ContinuousBatchingConfig,
    GenerationConfig,
    LogitsProcessor,
    PreTrainedTokenizerBase,
    StoppingCriteria,
)
from transformers.generation.continuous_batching.requests import GenerationOutput

from psr.engines.base import ANYWHERE, Completion, Engine, Origin, Sampling
from psr.engines.sampling import nucleus_sample
from psr.engines.usage import Usage
from psr.policy.folder import load_policy
from psr.policy.tokenizer import load_tokenizer

PAGE = 16
"""Tokens of a page of the paged cache: prefixes are shared by whole pages, and prompts are short."""
CACHE_TOKENS, BATCH_TOKENS = 8192, 64
"""Without a GPU every token of a step attends, under a mask, to all cached tokens of the step's requests: small steps
are faster. Of 32, 64, 256 and 1024 tokens a step, 64 was the fastest."""


class Draw(LogitsProcessor):
    """Leaves the token that the row's own uniform draws: greedy `generate` then samples by our seeds."""

    def __init__(self, sampling: Sampling, rows: int, start: int) -> None:
        self.sampling, self.start = sampling, start
        draws = [np.random.default_rng((sampling.seed, i % sampling.n)).random(4096) for i in range(rows)]
        self.uniforms = torch.tensor(np.stack(draws), dtype=torch.float32)

    def __call__(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        logprobs = (logits.float() / self.sampling.temperature).log_softmax(-1)
        top_p = torch.full((len(logits),), self.sampling.top_p)
        tokens = nucleus_sample(logprobs, top_p, self.uniforms[: len(logits), input_ids.shape[1] - self.start])
        return torch.full_like(logits, -torch.inf).scatter(1, tokens[:, None], 0.0)


class StopAt(StoppingCriteria):
    """A row ends once its text holds one of the stop texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], start: int) -> None:
        self.tokenizer, self.stops, self.start = tokenizer, stops, start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **unused: object) -> torch.Tensor:
        texts = self.tokenizer.batch_decode(input_ids[:, self.start :])
        return torch.tensor([any(stop in text for stop in self.stops) for text in texts])


class PlainEngine:
    """`model.generate`, one prompt after another, or those of one call as a padded batch."""

    served_version: str | None = None

    def __init__(self, batched: bool = False) -> None:
        self.batched = batched
        self.usage: Mapping[str, Usage] = {}

    async def load_weights(self, folder: Path, version: str) -> None:
        self.model, self.tokenizer, self.served_version = load_policy(folder).eval(), load_tokenizer(folder), version

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, origin: Origin = ANYWHERE
    ) -> list[list[Completion]]:
        await asyncio.sleep(0)  # another problem may go on in between
        groups = [list(prompts)] if self.batched else [[prompt] for prompt in prompts]
        return [completions for group in groups for completions in self._generate(group, sampling)]

    @torch.inference_mode()
    def _generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        rows, longest = [prompt for prompt in prompts for _ in range(sampling.n)], max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        out = self.model.generate(  # type: ignore[operator]
            ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=min(sampling.max_new_tokens, self.model.config.max_position_embeddings - longest),
            logits_processor=[Draw(sampling, len(rows), longest)] if sampling.temperature else [],
            stopping_criteria=[StopAt(self.tokenizer, sampling.stop, longest)] if sampling.stop else [],
            pad_token_id=self.tokenizer.pad_token_id,
        )
        made = [completion(row, self.tokenizer, sampling) for row in out[:, longest:].tolist()]
        return [made[i : i + sampling.n] for i in range(0, len(made), sampling.n)]

    async def choice_logprobs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[int], origin: Origin = ANYWHERE
    ) -> list[list[float]]:
        with torch.inference_mode():
            logits = [self.model(torch.tensor([list(prompt)])).logits[0, -1] for prompt in prompts]
        return [row.float().log_softmax(-1)[list(choices)].tolist() for row in logits]

    async def health(self) -> str:
        return str(self.served_version)

    async def sleep(self) -> None:
        pass

    async def close(self) -> None:
        pass


class ContinuousEngine(PlainEngine):
    """transformers' continuous batching: one manager for the whole search, which takes requests as they come.

    It draws by no seed of ours, so it decodes greedily: put it into a `Replay`. It knows no stop texts: a step ends at
    the token of the stop text where that is one, a judgement at EOS.
    """

    async def load_weights(self, folder: Path, version: str) -> None:
        await super().load_weights(folder, version)
        # By default it takes 60% of the memory for a cache, whose attention mask it clears at every step on a CPU.
        sizes = ContinuousBatchingConfig(
            page_size=PAGE, num_blocks=CACHE_TOKENS // PAGE, max_batch_tokens=BATCH_TOKENS, auto_switch_to_flash=False
        )
        greedy = GenerationConfig(
            do_sample=False, eos_token_id=self.tokenizer.eos_token_id, pad_token_id=self.tokenizer.pad_token_id
        )
        self._manager = self.model.init_continuous_batching(greedy, sizes)  # type: ignore[operator]
        self._manager.start()
        self._names = count()

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, origin: Origin = ANYWHERE
    ) -> list[list[Completion]]:
        ends = [self.tokenizer.encode(stop, add_special_tokens=False) for stop in sampling.stop]
        eos = [self.tokenizer.eos_token_id, *(ids[0] for ids in ends if len(ids) == 1)]
        replies = [self._ask(prompt, sampling.max_new_tokens, eos) for prompt in prompts for _ in range(sampling.n)]
        made = [completion(ids, self.tokenizer, sampling) for ids in await asyncio.gather(*replies)]
        return [made[i : i + sampling.n] for i in range(0, len(made), sampling.n)]

    def _ask(self, prompt: Sequence[int], max_new_tokens: int, eos: list[int]) -> asyncio.Future[list[int]]:
        reply: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        name = str(next(self._names))

        def take(result: GenerationOutput) -> None:
            if result.error is None:
                reply.set_result(list(result.generated_tokens))
            else:
                reply.set_exception(RuntimeError(result.error))

        self._manager.register_result_handler(name, take)
        room = self.model.config.max_position_embeddings - len(prompt)
        self._manager.add_request(list(prompt), name, max_new_tokens=min(max_new_tokens, room), eos_token_id=eos)
        return reply

    async def close(self) -> None:
        self._manager.stop(block=True, timeout=60)


class Replay:
    """Asks `engine` for everything, but hands on the `recorded` completions where sampled ones are asked for."""

    def __init__(self, engine: Engine, recorded: Mapping[tuple[tuple[int, ...], int], list[Completion]]) -> None:
        self.engine, self.recorded = engine, recorded

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, origin: Origin = ANYWHERE
    ) -> list[list[Completion]]:
        made = await self.engine.generate(prompts, sampling, origin)
        if sampling.temperature == 0:
            return made
        return [self.recorded[tuple(prompt), sampling.seed] for prompt in prompts]


class Record:
    """Asks `engine`, and keeps what it sampled."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.recorded: dict[tuple[tuple[int, ...], int], list[Completion]] = {}

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, origin: Origin = ANYWHERE
    ) -> list[list[Completion]]:
        made = await self.engine.generate(prompts, sampling, origin)
        if sampling.temperature:
            self.recorded.update({(tuple(p), sampling.seed): one for p, one in zip(prompts, made, strict=True)})
        return made


def completion(ids: list[int], tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> Completion:
    """The completion that `ids`, padded behind its end, begin with."""
    eos = tokenizer.eos_token_id
    if eos in ids:
        ids = ids[: ids.index(eos) + 1]
    for end in range(1, len(ids) + 1) if sampling.stop else ():
        if any(stop in str(tokenizer.decode(ids[:end])) for stop in sampling.stop):
            ids = ids[:end]
            break
    text = str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    reason = "eos" if ids and ids[-1] == eos else "stop" if any(stop in text for stop in sampling.stop) else "length"
    return Completion(tuple(ids), text, reason, 0.0, "M1")  # type: ignore[arg-type]
