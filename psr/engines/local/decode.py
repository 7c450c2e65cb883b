"""Decoding: the rows under way, one token per step, each distinct sequence of tokens once.

Rows that have sampled the same tokens after the same prompt are in the same state; they share a branch, with one KV
cache row and one forward, until they sample different tokens. The candidates of a step often begin alike, so this saves
much of their decoding. Knows rows and the arena. Does not know who asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from psr.engines.local.attention import Seen, additive
from psr.engines.local.kv import Arena, ArenaCache, KVShape, Pool
from psr.engines.local.packing import padded
from psr.engines.local.rows import Row
from psr.engines.local.texts import Texts
from psr.engines.sampling import nucleus_sample

COLUMN_BLOCK = 64
"""The number of the arena's columns is a multiple of this: growing it copies it, so it should be rare."""


@dataclass(eq=False)
class Branch:
    """Rows with the same tokens so far. The first `length` are in the KV cache; `token` is the next to be fed."""

    rows: list[Row]
    length: int
    token: int


@dataclass(frozen=True)
class Drawn:
    """What became of a branch: its finished rows, and a branch for each different token that the others sampled."""

    finished: list[Row]
    going: list[Branch]


class DecodeBatch:
    """The rows under way.

    Args:
        model: what decodes.
        shape: shape of the model's keys and values.
        max_rows: most rows decoded together.
        max_tokens: tokens whose keys and values fit in memory.
        eos: tokens that end a completion.
        texts: what tokens are as text.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        shape: KVShape,
        max_rows: int,
        max_tokens: int,
        eos: frozenset[int],
        texts: Texts,
    ) -> None:
        self._model, self._device, self.arena = model, shape.device, Arena(shape)
        self._max_rows, self._max_tokens, self._eos, self._texts = max_rows, max_tokens, eos, texts
        self._branches: list[Branch] = []  # branch i has row i of the arena
        self._drawn: list[Drawn] = []  # result of the last step, for every branch
        self.count = 0  # rows, of which a branch holds at least one

    def room(self, columns: int) -> int:
        """How many more rows of up to `columns` tokens may join."""
        # Counted as if every row needed a row of the arena: branches part, and there is no evicting rows under way.
        columns = _blocks(max(columns, self.arena.columns if self._branches else 0))
        return min(self._max_rows, max(1, self._max_tokens // columns)) - self.count

    def join(
        self, prompts: Sequence[Sequence[Row]], logits: Tensor, slots: Sequence[list[int]], pool: Pool
    ) -> list[Row]:
        """Sample the first token of rows that share a prompt; the rows that are finished by it.

        Args:
            prompts: the rows of each prompt.
            logits: (prompts, vocabulary), after each prompt.
            slots: slots of each prompt's tokens in the pool.
            pool: keys and values of the prompts.
        """
        # A prompt is a branch of all its rows, which has not sampled anything yet; `_draw` splits it.
        drawn = self._draw([Branch(list(rows), len(rows[0].prompt), -1) for rows in prompts], logits)
        new = [(branch, prompt) for one, prompt in zip(drawn, slots, strict=True) for branch in one.going]
        if new:
            columns = _blocks(max(row.reserved for branch, _ in new for row in branch.rows))
            self._fit(columns, len(self._branches) + len(new))
            longest = max(len(prompt) for _, prompt in new)
            # New branches go after those under way; padding copies slot 0 to columns that are masked.
            rows = torch.arange(len(self._branches), len(self._branches) + len(new), device=self._device)
            self.arena.load(pool, rows, padded([prompt for _, prompt in new], longest).to(self._device))
            self._branches += [branch for branch, _ in new]
            self.count += sum(len(branch.rows) for branch, _ in new)
        return [row for one in drawn for row in one.finished]

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, int]]:
        """One token for every row; the finished rows, each with its row of the arena, which `settle` reassigns."""
        lengths = torch.tensor([branch.length for branch in self._branches], device=self._device)
        longest = max(branch.length for branch in self._branches) + 1
        columns = torch.arange(longest, device=self._device)[None, :]
        full = additive((columns <= lengths[:, None])[:, None], self._model.dtype)
        output = self._model(
            input_ids=torch.tensor([[branch.token] for branch in self._branches], device=self._device),
            attention_mask=Seen(full, lengths[:, None], columns),
            position_ids=lengths[:, None],
            past_key_values=ArenaCache(self.arena, lengths, longest),
            use_cache=True,
        )
        for branch in self._branches:
            branch.length += 1
        self._drawn = self._draw(self._branches, output.logits[:, -1].float())
        return [(row, index) for index, one in enumerate(self._drawn) for row in one.finished]

    def settle(self) -> None:
        """Release finished rows, and give each branch that has split off a row of the arena of its own."""
        # The first continuation of a branch stays where it is; the others need a copy of its keys and values.
        kept = [one.going[0] if one.going else None for one in self._drawn]
        parted = [(branch, index) for index, one in enumerate(self._drawn) for branch in one.going[1:]]
        self.count -= sum(len(one.finished) for one in self._drawn)
        holes = [index for index, branch in enumerate(kept) if branch is None][::-1]
        sources, targets = [], []
        self._fit(self.arena.columns, len(kept) + max(0, len(parted) - len(holes)))
        for branch, source in parted:  # into holes first, then at the end
            target = holes.pop() if holes else len(kept)
            kept[target : target + 1] = [branch]  # replaces a hole, or appends
            sources.append(source)
            targets.append(target)
        if sources:
            self.arena.copy(sources, targets, max(branch.length for branch, _ in parted))
        self._close(kept)

    def clear(self) -> None:
        self._branches, self.count = [], 0

    def _close(self, kept: list[Branch | None]) -> None:
        """Move the last branches into the holes of finished ones: a forward takes the first rows of the arena."""
        holes = [index for index, branch in enumerate(kept) if branch is None]
        sources, targets = [], []
        for hole in holes:
            while kept and kept[-1] is None:
                kept.pop()
            if hole >= len(kept):  # it was at the end, and is gone
                break
            sources.append(len(kept) - 1)
            targets.append(hole)
            kept[hole] = kept.pop()
        self._branches = [branch for branch in kept if branch is not None]
        if sources:
            self.arena.copy(sources, targets, max(self._branches[target].length for target in targets))

    def _fit(self, columns: int, rows: int) -> None:
        """Make the arena large enough; shrink its columns when it is empty."""
        used = len(self._branches)
        # One very long prompt would otherwise keep it wide, and so short of rows, for all that follow.
        columns = max(columns, self.arena.columns if used else 0)
        if columns > self.arena.columns or rows > self.arena.rows or (not used and columns < self.arena.columns):
            most = max(1, min(self._max_rows, self._max_tokens // columns))
            self.arena.resize(min(most, max(2 * rows, self.arena.rows)), columns, used)  # doubling: few copies in all

    def _draw(self, branches: Sequence[Branch], logits: Tensor) -> list[Drawn]:
        """Sample the next token of every row, from the logits (branches, vocabulary) of its branch."""
        rows = [row for branch in branches for row in branch.rows]
        if len(rows) > len(branches):
            index = [i for i, branch in enumerate(branches) for _ in branch.rows]
            logits = logits[torch.tensor(index, device=self._device)]  # (rows, vocabulary)
        tokens, logprobs = draw(rows, logits)
        drawn, at = [], 0
        for branch in branches:
            finished: list[Row] = []
            going: dict[int, list[Row]] = {}  # rows that go on, by the token that they sampled
            for row in branch.rows:
                row.append(tokens[at], logprobs[at], self._eos, self._texts)
                if row.finish_reason is None:
                    going.setdefault(tokens[at], []).append(row)
                else:
                    finished.append(row)
                at += 1
            drawn.append(Drawn(finished, [Branch(some, branch.length, token) for token, some in going.items()]))
        return drawn


def draw(rows: Sequence[Row], logits: Tensor) -> tuple[list[int], list[float]]:
    """Next tokens and their log-probabilities at each row's temperature; logits (rows, vocabulary) in float32."""
    temperatures = torch.tensor([row.sampling.temperature or 1.0 for row in rows], device=logits.device)
    logprobs = (logits / temperatures[:, None]).log_softmax(-1)
    tokens = logprobs.argmax(-1)
    sampled = [i for i, row in enumerate(rows) if row.sampling.temperature > 0]
    if sampled:
        # A row brings a uniform for each of its tokens, so what it samples does not depend on the rest of the batch.
        uniforms = [rows[i].uniforms[len(rows[i].token_ids)] for i in sampled]
        uniform = torch.tensor(uniforms, dtype=torch.float32, device=logits.device)
        top_p = torch.tensor([rows[i].sampling.top_p for i in sampled], dtype=torch.float32, device=logits.device)
        index = torch.tensor(sampled, device=logits.device)
        tokens[index] = nucleus_sample(logprobs[index], top_p, uniform)
    return tokens.tolist(), logprobs.gather(1, tokens[:, None]).squeeze(1).tolist()


def _blocks(columns: int) -> int:
    return -(-columns // COLUMN_BLOCK) * COLUMN_BLOCK
