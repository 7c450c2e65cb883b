"""The in-process engine: the Engine protocol on a model in this process.

Requests of all waiting coroutines run in one batch, which new ones join as others finish (continuous batching). What is
sampled for a request depends only on its own seed, not on the batch around it. Knows nothing of steps or judges.
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
from psr.policy.tokenizer import load_eos, load_tokenizer

if TYPE_CHECKING:
    from psr.engines.local.core import Core

DTYPES = ("float32", "bfloat16")
SETTLED_TURNS = 8
"""Turns of the event loop without a new request after which every coroutine that can run has asked."""


@dataclass(eq=False)
class _Job:
    """One waiting call: its rows, and how many of them are still unfinished."""

    rows: list[Row]
    reply: asyncio.Future[None]
    left: int


class LocalEngine(Engine):
    """Serves a policy inside this process.

    Args:
        dtype: "float32" or "bfloat16"; greedy tokens of float32 are those of transformers' own `generate`.
        max_batch: most completions decoded together.
        device: torch device of the engine's copy of the weights.
        cache_gib: memory of the KV cache in GiB, half for the prefix cache and half for the completions under way;
            fewer of those are decoded together where they would not fit.
    """

    def __init__(
        self, dtype: str = "float32", max_batch: int = 512, device: str = "cpu", cache_gib: float = 2.0
    ) -> None:
        if dtype not in DTYPES:
            raise EngineError(f"engine.dtype is {dtype!r}: choose one of {', '.join(DTYPES)}")
        if max_batch < 1:
            raise EngineError(f"engine.max_batch is {max_batch}: it must be at least 1")
        self.dtype, self.max_batch, self.device = dtype, max_batch, device
        self.cache_gib = cache_gib
        self._usage: dict[str, Usage] = {}
        self._core: Core | None = None
        self._version: str | None = None
        self._checked = ""
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
                # All of a completion's randomness, before it meets a batch: no batch can change what is sampled.
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
        scoring = Sampling(max_new_tokens=0)  # no uniforms either: the prompt's last logits are all that is needed
        rows = [Row(tuple(prompt), scoring, np.empty(0), tuple(choices)) for prompt in prompts]
        await self._ask(rows, origin)
        return [row.scores for row in rows]

    async def load_weights(self, folder: Path, version: str) -> None:
        if any(not job.reply.done() for job in self._jobs.values()):  # those of a failed run are cancelled, so done
            raise EngineError("weights cannot be changed while requests are waiting")
        await self.close()  # frees the old weights before the new ones are read: two models may not fit
        import torch  # when there is something to serve: naming an engine in a config should cost nothing

        from psr.engines.local.core import Core
        from psr.engines.local.self_check import check_core
        from psr.policy.folder import load_policy

        model = load_policy(folder, getattr(torch, self.dtype), self.device).eval()
        core = Core(model, load_tokenizer(folder), load_eos(folder), self.max_batch, int(self.cache_gib * 2**30))
        if (config := model.config.to_json_string()) != self._checked:  # once for all versions of a model
            check_core(core)
            self._checked = config
        self._core, self._version = core, version

    async def health(self) -> str:
        if self._version is None:
            raise EngineError("the engine serves no weights yet: call load_weights first")
        return self._version

    async def close(self) -> None:
        self._core = self._version = None
        self._jobs.clear()

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
        """Queue the rows and wait until all are finished."""
        assert self._core is not None
        if not rows:
            return
        loop, started = asyncio.get_running_loop(), time.monotonic()
        # The worker runs only while there is work, in the caller's event loop: callers use one asyncio.run per phase,
        # and one that was cancelled may have left rows behind.
        if self._worker is None or self._worker.done():
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
        # Seconds count for each row, as if it had been a request of its own (see Usage).
        used = Usage(len(rows), asked, asked - computed, generated, (time.monotonic() - started) * len(rows))
        self._usage[origin.kind] = self._usage.get(origin.kind, Usage()) + used

    async def _serve(self) -> None:
        """Step the core until it is idle. Steps block the event loop; nobody can ask before a reply wakes somebody."""
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
            # Whoever got a reply is about to ask again, as a search asks step by step: give it the chance to join.
            if self._reply(finished) or not core.busy:
                await self._settle()

    def _reply(self, finished: list[Row]) -> int:
        """Wake the callers whose rows are all finished; how many they are."""
        told = 0
        for row in finished:
            job = self._jobs.pop(row)
            job.left -= 1
            if job.left == 0 and not job.reply.done():
                job.reply.set_result(None)
                told += 1
        return told

    async def _settle(self) -> None:
        """Let every coroutine that can run ask first, so that the batch is full."""
        # There is no way to ask an event loop whether others are ready, so wait for some turns without a new request.
        seen, quiet = -1, 0
        while quiet < SETTLED_TURNS:
            quiet = quiet + 1 if self._asked == seen else 0
            seen = self._asked
            await asyncio.sleep(0)

    def _completion(self, row: Row) -> Completion:
        assert self._core is not None and row.finish_reason is not None and self._version is not None
        text = self._core.texts.decode(row.token_ids[:-1] if row.finish_reason == "eos" else row.token_ids)
        return Completion(tuple(row.token_ids), text, row.finish_reason, row.logprob, self._version)
