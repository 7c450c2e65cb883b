"""The core of the in-process engine: which waiting rows join, what of their prompts is computed, step after step.

Knows rows, the prefix cache and the decode batch. Synchronous: does not know coroutines, jobs or the Engine protocol.
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
"""Rows join when they are so many, as a share of those under way: a prefill for each would be mostly overhead."""


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
        """Some work; the rows that it has finished."""
        finished = []
        if self._waiting and len(self._waiting) >= JOIN_SHARE * self._decoding.count:
            finished += self._join()
        if self._decoding.count:
            done = self._decoding.step()
            self._keep(done)
            self._decoding.settle()
            finished += [row for row, _ in done]
        return finished

    def clear_rows(self) -> None:
        """Forget all rows: nobody waits for them any more."""
        self._waiting.clear()
        self._decoding.clear()

    def clear(self) -> None:
        """Forget all rows, and a cache that a failed forward may have left half-written."""
        self.clear_rows()
        self._tree = PrefixTree(self._tree.capacity)

    def _join(self) -> list[Row]:
        """Compute the prompts of as many waiting rows as there is room for; the rows that are finished already."""
        prompts, new = self._admit()
        if not prompts:
            return []
        # New tokens once, and for its logits the last token of a prompt that is all there.
        again = {prompt.path[-1] for prompt in prompts if prompt.path[-1] not in new}
        nodes = [*sorted(again, key=lambda node: node.depth), *new]
        hidden = self._compute(nodes, {prompt.path[-1] for prompt in prompts})
        last = torch.stack([hidden[prompt.path[-1]] for prompt in prompts])
        scored = [i for i, prompt in enumerate(prompts) if prompt.rows[0].choices]
        going = [i for i, prompt in enumerate(prompts) if not prompt.rows[0].choices]
        finished = self._score([prompts[i] for i in scored], last[scored]) if scored else []
        if going:
            logits = own_logits(self.model, last[going]).float()
            slots = [[node.slot for node in prompts[i].path] for i in going]
            finished += self._decoding.join([prompts[i].rows for i in going], logits, slots, self._pool)
        return finished

    def _admit(self) -> tuple[list[_Prompt], dict[Node, None]]:
        """Take rows from the queue, in order, and give their prompts slots; the new nodes, parents first."""
        self._tree.begin_round()
        prompts: dict[tuple[tuple[int, ...], bool], _Prompt] = {}
        new: dict[Node, None] = {}
        joined, columns = 0, 0
        while self._waiting:
            row = self._waiting[0]
            columns = max(columns, row.reserved)
            if not row.choices and joined >= self._decoding.room(columns):
                break
            prompt = prompts.get((row.prompt, bool(row.choices)))
            if prompt is None:
                path = self._tree.path(row.prompt)
                missing = self._tree.extend(path, row.prompt[len(path) :])
                if missing is None:
                    break
                new.update(dict.fromkeys(missing))
                row.computed = max(1, len(missing))
                prompts[row.prompt, bool(row.choices)] = prompt = _Prompt([], path + missing)
            prompt.rows.append(self._waiting.popleft())
            joined += not row.choices
        return list(prompts.values()), new

    def _compute(self, nodes: list[Node], wanted: set[Node]) -> dict[Node, Tensor]:
        """Fill the slots of `nodes`; the last hidden states (hidden,) of the wanted ones."""
        hidden = {}
        self._pool.fit(self._tree.slots)
        for stage in plan(nodes):
            for packs in batches(stage):
                batch = tensors(packs, self._pool.keys[0].device)
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

        The logits are computed in float32: in bfloat16 those of two verdicts would mostly be equal.
        """
        logprobs = own_logits_float32(self.model, last).log_softmax(-1)
        for prompt, values in zip(prompts, logprobs, strict=True):
            for row in prompt.rows:
                row.scores = values[list(row.choices)].tolist()
        return [row for prompt in prompts for row in prompt.rows]

    def _keep(self, done: Sequence[tuple[Row, int]]) -> None:
        """Keep the completions of a prompt that was asked for several: a search goes on from one of them."""
        self._tree.begin_round()  # whoever is under way has its own copy: any node may go
        rows, columns, slots = [], [], []
        for row, index in done:
            if row.sampling.n == 1:
                continue
            tokens = [*row.prompt, *row.token_ids[:-1]]  # the last token was drawn, not fed
            path = self._tree.path(tokens)
            added = self._tree.extend(path, tokens[len(path) :]) or []
            rows += [index] * len(added)
            columns += [node.depth for node in added]
            slots += [node.slot for node in added]
        if slots:
            self._pool.fit(self._tree.slots)
            device = self._pool.keys[0].device
            where = (torch.tensor(one, device=device) for one in (rows, columns, slots))
            self._decoding.arena.store(self._pool, *where)
