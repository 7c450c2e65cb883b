"""The in-process engine: the Engine protocol on a model in this process.

Requests of all coroutines that wait at the same time run in one batch, which new ones join as others leave. Knows
nothing of steps or judges. What is sampled for a request depends on its own seed alone, not on the batch around it.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from psr.engines.base import ANYWHERE, Completion, Engine, EngineError, Origin, PromptTooLong, Sampling
from psr.engines.local.rows import Row
from psr.engines.usage import Usage
from psr.policy.tokenizer import load_tokenizer

if TYPE_CHECKING:
    import torch

    from psr.engines.local.core import Core

DTYPES = ("auto", "float32", "bfloat16")
SETTLED_TURNS = 8
"""Turns of the event loop without a new request after which every waiting coroutine has asked."""


@dataclass(eq=False)
class _Job:
    """One waiting call: its rows, and how many of them are not finished."""

    rows: list[Row]
    reply: asyncio.Future[None]
    left: int


class LocalEngine(Engine):
    """Serves a policy inside this process.

    Args:
        dtype: "float32" or "bfloat16"; "auto" is bfloat16 on a GPU and float32 on a CPU. Greedy tokens of float32 are
            those of transformers' own `generate`.
        max_batch: completions decoded together.
        device: torch device that the engine's copy of the weights lives on, as in "cpu" or "cuda"; "auto" is the GPU of
            this process where there is one.
        cache_gib: memory for keys and values in GiB, half of it for prefixes that are kept for later requests, half for
            the completions under way; fewer of those are decoded together where they would not fit.
    """

    def __init__(self, dtype: str = "auto", max_batch: int = 512, device: str = "auto", cache_gib: float = 2.0) -> None:
        if dtype not in DTYPES:
            raise EngineError(f"engine.dtype is {dtype!r}: choose one of {', '.join(DTYPES)}")
        if max_batch < 1:
            raise EngineError(f"engine.max_batch is {max_batch}: it must be at least 1")
        self.dtype, self.max_batch, self.device = dtype, max_batch, device
        self.cache_gib = cache_gib
        self._usage: dict[str, Usage] = {}
        self._core: Core | None = None
        self._version: str | None = None
        self._jobs: dict[Row, _Job] = {}
        self._asked = 0
        self._worker: asyncio.Task[None] | None = None

    @property
    def served_version(self) -> str | None:
        return self._version

    @property
    def usage(self) -> Mapping[str, Usage]:
        return self._usage

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, origin: Origin = ANYWHERE
    ) -> list[list[Completion]]:
        rows = []
        for prompt in prompts:
            length = min(sampling.max_new_tokens, self._room(prompt))
            for index in range(sampling.n):
                uniforms = np.random.default_rng((sampling.seed, index)).random(length)
                rows.append(Row(tuple(prompt), sampling, uniforms))
        await self._ask(rows, origin)
        completions = [self._completion(row) for row in rows]
        return [completions[i : i + sampling.n] for i in range(0, len(completions), sampling.n)]

    async def choice_logprobs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[int], origin: Origin = ANYWHERE
    ) -> list[list[float]]:
        for prompt in prompts:
            self._room(prompt)
        scoring = Sampling(max_new_tokens=0)
        rows = [Row(tuple(prompt), scoring, np.empty(0), tuple(choices)) for prompt in prompts]
        await self._ask(rows, origin)
        return [row.scores for row in rows]

    async def load_weights(self, folder: Path, version: str) -> None:
        if any(not job.reply.done() for job in self._jobs.values()):  # a run that failed leaves cancelled ones behind
            raise EngineError("weights cannot be changed while requests are waiting")
        await self.close()
        # When there is something to serve: naming an engine in a config should cost nothing.
        from psr.engines.local.core import Core
        from psr.policy.folder import load_policy

        device, dtype = placed(self.device, self.dtype)
        model = load_policy(folder, dtype, device).eval()
        self._core = Core(model, load_tokenizer(folder), self.max_batch, int(self.cache_gib * 2**30))
        self._version = version

    async def health(self) -> str:
        if self._version is None:
            raise EngineError("the engine serves no weights yet: call load_weights first")
        return self._version

    async def close(self) -> None:
        held, self._core, self._version = self._core, None, None
        self._jobs.clear()
        if held is not None and held.model.device.type == "cuda":
            import torch

            del held  # or its memory would count as in use
            torch.cuda.empty_cache()

    async def sleep(self) -> None:
        await self.close()

    def _room(self, prompt: Sequence[int]) -> int:
        """Tokens that may follow the prompt."""
        if self._core is None:
            raise EngineError("the engine serves no weights yet: call load_weights first")
        context = self._core.context
        if len(prompt) >= context:
            raise PromptTooLong(
                f"a prompt of {len(prompt)} tokens leaves no room in the model's context of {context} tokens: "
                "shorten the prompt template, drop long problems or use a model with a longer context"
            )
        return context - len(prompt)

    async def _ask(self, rows: list[Row], origin: Origin) -> None:
        """Have the rows finished."""
        assert self._core is not None
        if not rows:
            return
        loop, started = asyncio.get_running_loop(), time.monotonic()
        if self._worker is None or self._worker.done():  # what an earlier event loop has left behind goes first
            self._core.clear_rows()
            self._jobs.clear()
            self._worker = loop.create_task(self._serve())
        job = _Job(rows, loop.create_future(), len(rows))
        self._jobs.update(dict.fromkeys(rows, job))
        self._asked += 1
        self._core.ask(rows)
        await job.reply
        asked, computed = sum(len(row.prompt) for row in rows), sum(row.computed for row in rows)
        generated = sum(len(row.token_ids) for row in rows)
        used = Usage(len(rows), asked, asked - computed, generated, (time.monotonic() - started) * len(rows))
        self._usage[origin.kind] = self._usage.get(origin.kind, Usage()) + used

    async def _serve(self) -> None:
        await self._settle()
        while (core := self._core) is not None and core.busy:  # new weights come with a new core
            try:
                finished = core.step()
            except Exception as error:  # the waiting coroutines raise it, not this task
                for job in set(self._jobs.values()):
                    if not job.reply.done():
                        job.reply.set_exception(error)
                self._jobs.clear()
                core.clear()
                finished = []
            if self._reply(finished) or not core.busy:
                await self._settle()

    def _reply(self, finished: list[Row]) -> int:
        """Tell those whose rows are all finished; how many they are."""
        told = 0
        for row in finished:
            job = self._jobs.pop(row)
            job.left -= 1
            if job.left == 0 and not job.reply.done():
                job.reply.set_result(None)
                told += 1
        return told

    async def _settle(self) -> None:
        """Let every coroutine that can still run ask first, so that the batch is full."""
        seen, quiet = -1, 0
        while quiet < SETTLED_TURNS:
            quiet = quiet + 1 if self._asked == seen else 0
            seen = self._asked
            await asyncio.sleep(0)

    def _completion(self, row: Row) -> Completion:
        assert self._core is not None and row.finish_reason is not None and self._version is not None
        text = self._core.tokenizer.decode(row.token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Completion(tuple(row.token_ids), str(text), row.finish_reason, row.logprob, self._version)


def placed(device: str, dtype: str) -> tuple["torch.device", "torch.dtype"]:
    """Where weights live and in which precision, with "auto" decided. Raises EngineError where there is no such GPU."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise EngineError(f"engine.device is {device!r}, and torch finds no GPU: leave it out, or say cpu")
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    return torch.device(device), getattr(torch, dtype)
