"""The scheduler of the in-process engine: which waiting rows join, and what of their prompts has to be computed.

Continuous batching: before each decoding step, waiting rows are prefilled and join those under way. Knows rows, the
prefix cache and the decode batch. Synchronous: does not know coroutines, jobs or the Engine protocol.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from psr.engines.base import EngineError
from psr.engines.local.attention import NAME, Seen, additive
from psr.engines.local.decode import DecodeBatch
from psr.engines.local.kv import PackedCache, Pool, kv_shape
from psr.engines.local.packing import batches, plan, tensors
from psr.engines.local.prefix_tree import Node, PrefixTree
from psr.engines.local.rows import Row
from psr.engines.local.texts import Texts
from psr.policy.context import context_of
from psr.trees.head import own_logits, own_logits_float32

JOIN_SHARE = 0.25
"""Rows join once they are this share of those under way: a prefill for every single one would be mostly overhead."""


@dataclass
class _Prompt:
    """The rows that ask for the same prompt, and its nodes in the tree."""

    rows: list[Row]
    path: list[Node]


class Core:
    """Decodes and scores rows with one model.

    Args:
        model: a causal language model; from now on it is called with this engine's cache and masks.
        tokenizer: its tokenizer.
        eos: tokens that end a completion.
        max_batch: rows decoded together.
        cache_bytes: memory for keys and values, half for prefixes that are kept and half for rows under way.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        eos: frozenset[int],
        max_batch: int,
        cache_bytes: int,
    ) -> None:
        shape = kv_shape(model)
        model.set_attn_implementation(NAME)
        self.model, self.texts = model, Texts(tokenizer)
        tokens, self.context = cache_bytes // 2 // shape.token_bytes, context_of(model.config)
        if tokens < self.context:
            needed = 2 * self.context * shape.token_bytes / 2**30
            raise EngineError(
                f"engine.cache_gib is {cache_bytes / 2**30:.2g}: one sequence of the model's {self.context} tokens "
                f"needs {needed:.2g}; raise it"
            )
        self._pool = Pool(shape, tokens)
        self._tree = PrefixTree(tokens)
        self._decoding = DecodeBatch(model, shape, max_batch, tokens, eos, self.texts)
        self._waiting: deque[Row] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._waiting) or self._decoding.count > 0

    def ask(self, rows: Sequence[Row]) -> None:
        self._waiting.extend(rows)

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """A prefill, if enough rows wait, and one decoding step; the rows that are finished by it."""
        finished = []
        if self._waiting and len(self._waiting) >= JOIN_SHARE * self._decoding.count:
            finished += self._join()
        if self._decoding.count:
            done = self._decoding.step()
            self._keep(done)  # before `settle`, which gives the arena rows of finished ones to others
            self._decoding.settle()
            finished += [row for row, _ in done]
        return finished

    def clear_rows(self) -> None:
        """Drop all rows: nobody waits for them any more."""
        self._waiting.clear()
        self._decoding.clear()

    def clear(self) -> None:
        """Drop all rows, and the prefix cache, which a failed forward may have left half-written."""
        self.clear_rows()
        self._tree = PrefixTree(self._tree.capacity)

    def _join(self) -> list[Row]:
        """Prefill the prompts of as many waiting rows as there is room for; the rows that are finished already."""
        prompts, new = self._admit()
        if not prompts:
            return []
        # Each new token once; and of a prompt that is cached as a whole its last token again, since the cache holds
        # keys and values but not the hidden state that the next token is drawn from.
        again = {prompt.path[-1] for prompt in prompts if prompt.path[-1] not in new}
        nodes = [*sorted(again, key=lambda node: node.depth), *new]
        hidden = self._compute(nodes, {prompt.path[-1] for prompt in prompts})
        last = torch.stack([hidden[prompt.path[-1]] for prompt in prompts])  # (prompts, hidden)
        scored = [i for i, prompt in enumerate(prompts) if prompt.rows[0].choices]
        going = [i for i, prompt in enumerate(prompts) if not prompt.rows[0].choices]
        finished = self._score([prompts[i] for i in scored], last[scored]) if scored else []
        if going:
            logits = own_logits(self.model, last[going]).float()
            slots = [[node.slot for node in prompts[i].path] for i in going]
            finished += self._decoding.join([prompts[i].rows for i in going], logits, slots, self._pool)
        return finished

    def _admit(self) -> tuple[list[_Prompt], dict[Node, None]]:
        """Take rows from the queue, in order, and give slots to their prompts; the new nodes, parents first.

        Stops at the first row without room: were smaller ones let past it, a long prompt might wait for ever.
        """
        self._tree.begin_round()
        prompts: dict[tuple[tuple[int, ...], bool], _Prompt] = {}
        new: dict[Node, None] = {}  # an ordered set
        joined, columns = 0, 0
        while self._waiting:
            row = self._waiting[0]
            columns = max(columns, row.reserved)  # the arena is as wide as its longest row
            if not row.choices and joined >= self._decoding.room(columns):
                break
            # All samples of a prompt are prefilled as one: its tokens are computed for the first of its rows.
            prompt = prompts.get((row.prompt, bool(row.choices)))
            if prompt is None:
                path = self._tree.path(row.prompt)
                missing = self._tree.extend(path, row.prompt[len(path) :])
                if missing is None:
                    break
                new.update(dict.fromkeys(missing))
                row.computed = max(1, len(missing))  # at least the last token, see `_join`
                prompts[row.prompt, bool(row.choices)] = prompt = _Prompt([], path + missing)
            prompt.rows.append(self._waiting.popleft())
            joined += not row.choices
        return list(prompts.values()), new

    def _compute(self, nodes: list[Node], wanted: set[Node]) -> dict[Node, Tensor]:
        """Compute the keys and values of `nodes`; the last hidden state, (hidden,), of each of the wanted ones."""
        hidden = {}
        self._pool.fit(self._tree.slots)
        for stage in plan(nodes):
            for packs in batches(stage):
                batch = tensors(packs, self._pool.keys[0].device)
                # Without the head: logits are wanted for one token of each prompt only.
                output = self.model.base_model(
                    input_ids=batch.ids,
                    attention_mask=Seen(additive(batch.seen, self.model.dtype), batch.positions, batch.key_positions),
                    position_ids=batch.positions,
                    past_key_values=PackedCache(self._pool, batch.context, batch.slots),
                    use_cache=True,
                )
                last = output.last_hidden_state
                places = [(node, i, j) for i, p in enumerate(packs) for j, node in enumerate(p.nodes) if node in wanted]
                hidden.update({node: last[i, j] for node, i, j in places})
        return hidden

    def _score(self, prompts: list[_Prompt], last: Tensor) -> list[Row]:
        """Log-probabilities of the choices, from last hidden states (prompts, hidden).

        The logits are computed in float32: rounded to bfloat16, those of two verdicts would mostly be equal.
        """
        logprobs = own_logits_float32(self.model, last).log_softmax(-1)
        for prompt, values in zip(prompts, logprobs, strict=True):
            for row in prompt.rows:
                row.scores = values[list(row.choices)].tolist()
        return [row for prompt in prompts for row in prompt.rows]

    def _keep(self, done: Sequence[tuple[Row, int]]) -> None:
        """Put completions into the prefix cache where a prompt had several: a search goes on from one of them."""
        self._tree.begin_round()  # rows under way have copies in the arena, so any node may be evicted
        rows, columns, slots = [], [], []
        for row, index in done:
            if row.sampling.n == 1:  # mostly a verdict or a greedy solution, with which no later prompt begins
                continue
            tokens = [*row.prompt, *row.token_ids[:-1]]  # the last token was drawn but never fed: it has no keys yet
            path = self._tree.path(tokens)
            added = self._tree.extend(path, tokens[len(path) :]) or []  # no room: the cache only misses later
            rows += [index] * len(added)
            columns += [node.depth for node in added]  # in the arena a token's column is its position
            slots += [node.slot for node in added]
        if slots:
            self._pool.fit(self._tree.slots)
            device = self._pool.keys[0].device
            where = (torch.tensor(one, device=device) for one in (rows, columns, slots))
            self._decoding.arena.store(self._pool, *where)
