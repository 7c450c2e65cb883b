"""The in-process engine: batched decoding with a KV cache on transformers' own models.

Requests of all coroutines that wait at the same time are gathered, sorted by length and run in batches. Knows nothing
of steps or judges. What is sampled for a request depends on its own seed alone, not on the batch that it lands in.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from psr.engines.base import ANYWHERE, Completion, EngineError, FinishReason, Origin, PromptTooLong, Sampling
from psr.engines.sampling import nucleus_sample
from psr.engines.usage import Usage
from psr.modules.policy import load_policy, load_tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
COMPACT_BELOW = 0.75
"""Finished rows are dropped from the batch when fewer than this share still decode: copying the cache costs too."""
SCORED_RATIO = 1.5
"""Prompts that are only scored share a batch within this ratio of lengths: padding would cost more than it saves."""
SETTLED_TURNS = 8
"""Turns of the event loop without a new request after which every waiting coroutine has asked."""


@dataclass
class _Row:
    """One completion in the making."""

    prompt: tuple[int, ...]
    sampling: Sampling
    uniforms: np.ndarray
    token_ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    tail: str = ""
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class _Job:
    """One waiting call: rows to decode, or prompts whose next-token log-probabilities are asked for."""

    rows: list[_Row]
    choices: Sequence[int]
    reply: asyncio.Future[Any]


class LocalEngine:
    """Serves a policy inside this process.

    Args:
        dtype: "float32" or "bfloat16"; greedy tokens of float32 are those of transformers' own `generate`.
        max_batch: completions decoded together.
        device: torch device that the engine's copy of the weights lives on.
    """

    def __init__(self, dtype: str = "float32", max_batch: int = 256, device: str = "cpu") -> None:
        if dtype not in DTYPES:
            raise EngineError(f"engine.dtype is {dtype!r}: choose one of {', '.join(DTYPES)}")
        if max_batch < 1:
            raise EngineError(f"engine.max_batch is {max_batch}: it must be at least 1")
        self.dtype, self.max_batch, self.device = DTYPES[dtype], max_batch, torch.device(device)
        self.usage: dict[str, Usage] = {}
        self._model: PreTrainedModel | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._version: str | None = None
        self._waiting: list[_Job] = []
        self._worker: asyncio.Task[None] | None = None
        self._pieces: dict[int, str] = {}

    @property
    def served_version(self) -> str | None:
        return self._version

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, origin: Origin = ANYWHERE
    ) -> list[list[Completion]]:
        rows = []
        for prompt in prompts:
            room = self._check_room(prompt)
            length = min(sampling.max_new_tokens, room)
            for index in range(sampling.n):
                uniforms = np.random.default_rng((sampling.seed, index)).random(length)
                rows.append(_Row(tuple(prompt), sampling, uniforms))
        completions = await self._ask(rows, (), origin)
        return [completions[i : i + sampling.n] for i in range(0, len(completions), sampling.n)]

    async def choice_logprobs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[int], origin: Origin = ANYWHERE
    ) -> list[list[float]]:
        for prompt in prompts:
            self._check_room(prompt)
        rows = [_Row(tuple(prompt), Sampling(max_new_tokens=0), np.empty(0)) for prompt in prompts]
        return await self._ask(rows, tuple(choices), origin)

    async def load_weights(self, folder: Path, version: str) -> None:
        if any(not job.reply.done() for job in self._waiting):  # a run that failed leaves cancelled ones behind
            raise EngineError("weights cannot be changed while requests are waiting")
        self._model = load_policy(folder, self.dtype, self.device).eval()
        self._tokenizer = load_tokenizer(folder)
        self._pieces.clear()
        self._version = version

    async def health(self) -> str:
        if self._version is None:
            raise EngineError("the engine serves no weights yet: call load_weights first")
        return self._version

    async def close(self) -> None:
        self._model = self._tokenizer = self._version = None

    async def sleep(self) -> None:
        await self.close()

    def _check_room(self, prompt: Sequence[int]) -> int:
        if self._model is None:
            raise EngineError("the engine serves no weights yet: call load_weights first")
        context = int(self._model.config.max_position_embeddings)
        if len(prompt) >= context:
            raise PromptTooLong(
                f"a prompt of {len(prompt)} tokens leaves no room in the model's context of {context} tokens: "
                "shorten the prompt template, drop long problems or use a model with a longer context"
            )
        return context - len(prompt)

    async def _ask(self, rows: list[_Row], choices: Sequence[int], origin: Origin) -> list[Any]:
        loop, started = asyncio.get_running_loop(), time.monotonic()
        job = _Job(rows, choices, loop.create_future())
        self._waiting.append(job)
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._serve())
        reply = await job.reply
        # Completions of one prompt share its prefill, scored prompts share nothing.
        asked = sum(len(row.prompt) for row in rows)
        computed = asked if choices else sum(map(len, {row.prompt for row in rows}))
        generated = sum(len(row.token_ids) for row in rows)
        used = Usage(len(rows), asked, asked - computed, generated, (time.monotonic() - started) * len(rows))
        self.usage[origin.kind] = self.usage.get(origin.kind, Usage()) + used
        return reply

    async def _serve(self) -> None:
        while self._waiting:
            await self._settle()
            jobs, self._waiting = self._waiting, []
            waiting = [job for job in jobs if not job.reply.done()]
            try:
                replies = self._run(waiting)
            except Exception as error:  # the waiting coroutines raise it, not this task
                for job in waiting:
                    job.reply.set_exception(error)
                continue
            for job, reply in zip(waiting, replies, strict=True):
                job.reply.set_result(reply)

    async def _settle(self) -> None:
        """Let every coroutine that can still run ask first, so that the batch is full."""
        seen, quiet = -1, 0
        while quiet < SETTLED_TURNS:
            quiet = quiet + 1 if len(self._waiting) == seen else 0
            seen = len(self._waiting)
            await asyncio.sleep(0)

    def _run(self, jobs: list[_Job]) -> list[list[Any]]:
        """The replies to `jobs`: completions, or log-probabilities of the choices."""
        for batch in self._batches([row for job in jobs if not job.choices for row in job.rows]):
            self._decode(batch)
        return [self._score(job) if job.choices else [self._completion(row) for row in job.rows] for job in jobs]

    @torch.inference_mode()
    def _score(self, job: _Job) -> list[list[float]]:
        """The logits are computed in float32: in bfloat16 those of two verdicts would mostly be equal."""
        assert self._model is not None
        head = self._model.get_output_embeddings()
        weight, bias = head.weight.float(), None if head.bias is None else head.bias.float()
        choices = torch.tensor(job.choices, device=self.device)
        scores: dict[int, list[float]] = {}
        for batch in self._batches(job.rows, ratio=SCORED_RATIO):
            ids, mask, positions = self._padded([row.prompt for row in batch])
            output = self._model.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
            logprobs = F.linear(output.last_hidden_state[:, -1].float(), weight, bias).log_softmax(-1)
            scores.update(zip(map(id, batch), logprobs[:, choices].tolist(), strict=True))
        return [scores[id(row)] for row in job.rows]

    def _batches(self, rows: list[_Row], ratio: float = math.inf) -> list[list[_Row]]:
        """In the order of length; at most `max_batch` together, no prompt over `ratio` times as long as another."""
        batches: list[list[_Row]] = []
        for row in sorted(rows, key=lambda row: (len(row.prompt), row.sampling.max_new_tokens)):
            last = batches[-1] if batches else []
            if last and len(last) < self.max_batch and len(row.prompt) <= ratio * len(last[0].prompt):
                last.append(row)
            else:
                batches.append([row])
        return batches

    def _padded(self, prompts: Sequence[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Left-padded ids, attention mask and positions, each (prompts, longest)."""
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros(len(prompts), longest, dtype=torch.long)
        for i, prompt in enumerate(prompts):
            ids[i, longest - len(prompt) :] = torch.tensor(prompt)
            mask[i, longest - len(prompt) :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)

    @torch.inference_mode()
    def _prefill(
        self, prompts: Sequence[tuple[int, ...]]
    ) -> tuple[torch.Tensor, DynamicCache, torch.Tensor, torch.Tensor]:
        """Next-token logits (prompts, vocabulary) in float32, cache, attention mask and last positions; left-padded."""
        assert self._model is not None
        ids, mask, positions = self._padded(prompts)
        cache = DynamicCache(config=self._model.config)
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float(), cache, mask, positions[:, -1:]

    @torch.inference_mode()
    def _decode(self, rows: list[_Row]) -> None:
        """Decode all rows to their ends. Each distinct prompt is prefilled once."""
        assert self._model is not None
        distinct = {prompt: i for i, prompt in enumerate(dict.fromkeys(row.prompt for row in rows))}
        logits, cache, mask, positions = self._prefill(list(distinct))
        if len(distinct) < len(rows):
            spread = torch.tensor([distinct[row.prompt] for row in rows], device=self.device)
            cache.batch_select_indices(spread)
            logits, mask, positions = logits[spread], mask[spread], positions[spread]
        active = list(rows)
        while True:
            tokens = self._sample(active, logits)
            going = torch.tensor([row.finish_reason is None for row in active], device=self.device)
            if not going.any():
                return
            if going.float().mean() < COMPACT_BELOW:
                kept = going.nonzero().squeeze(1)
                cache.batch_select_indices(kept)
                mask, positions, tokens = mask[kept], positions[kept], tokens[kept]
                active = [active[i] for i in kept.tolist()]
            positions = positions + 1
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            output = self._model(
                input_ids=tokens[:, None], attention_mask=mask, position_ids=positions, past_key_values=cache
            )
            logits = output.logits[:, -1].float()

    def _sample(self, rows: list[_Row], logits: torch.Tensor) -> torch.Tensor:
        """Draw the next token of every row that is not finished, and note what follows from it; shape (rows,)."""
        greedy = torch.tensor([row.sampling.temperature == 0 for row in rows], device=self.device)
        temperature = torch.tensor([row.sampling.temperature or 1.0 for row in rows], device=self.device)
        logprobs = (logits / temperature[:, None]).log_softmax(-1)
        tokens = logprobs.argmax(-1)
        if not greedy.all():
            tokens = torch.where(greedy, tokens, self._nucleus(rows, logprobs))
        taken = logprobs.gather(1, tokens[:, None]).squeeze(1).tolist()
        for row, token, logprob in zip(rows, tokens.tolist(), taken, strict=True):
            if row.finish_reason is None:
                self._append(row, token, logprob)
        return tokens

    def _nucleus(self, rows: list[_Row], logprobs: torch.Tensor) -> torch.Tensor:
        """Inverse-CDF sampling from the nucleus, with the uniform that each row drew for this position."""
        drawn = [row.uniforms[min(len(row.token_ids), len(row.uniforms) - 1)] for row in rows]
        uniform = torch.tensor(drawn, dtype=torch.float32, device=self.device)
        top_p = torch.tensor([row.sampling.top_p for row in rows], dtype=torch.float32, device=self.device)
        return nucleus_sample(logprobs, top_p, uniform)

    def _append(self, row: _Row, token: int, logprob: float) -> None:
        assert self._tokenizer is not None
        row.token_ids.append(token)
        row.logprob += logprob
        if token == self._tokenizer.eos_token_id:
            row.finish_reason = "eos"
            return
        if row.sampling.stop:
            row.tail += self._piece(token)
            if any(stop in row.tail for stop in row.sampling.stop):
                row.finish_reason = "stop"
                return
            row.tail = row.tail[-max(map(len, row.sampling.stop)) :]
        if len(row.token_ids) >= len(row.uniforms):
            row.finish_reason = "length"

    def _piece(self, token: int) -> str:
        """The text of one token: cached, because decoding every row at every step would cost more than the model."""
        assert self._tokenizer is not None
        if token not in self._pieces:
            self._pieces[token] = str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))
        return self._pieces[token]

    def _completion(self, row: _Row) -> Completion:
        assert self._tokenizer is not None and row.finish_reason is not None and self._version is not None
        text = self._tokenizer.decode(row.token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Completion(tuple(row.token_ids), str(text), row.finish_reason, row.logprob, self._version)
