"""How a prefill is laid out in forwards: subtrees of the prefix tree packed as sequences, each token once.

A sequence may hold many prompts with a common prefix: a mask lets every token attend only to its own ancestors. Knows
nodes and index tensors. Does not know models.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from psr.engines.local.prefix_tree import PADDING, Node

PACK_TOKENS = 256
"""A subtree of at most this many tokens is one sequence: dense attention computes masked pairs, too."""
BATCH_CELLS = 1 << 22
"""Most elements of the attention mask of one forward, which bounds its memory."""
LENGTH_RATIO = 1.5
"""Sequences share a forward within this ratio of lengths: beyond it, padding costs more than batching saves."""


@dataclass(frozen=True)
class Pack:
    """Nodes in depth-first order, with the slots of the `context` before them.

    `ends[i]` is the index after the last descendant of node i, as in a step tree.
    """

    nodes: list[Node]
    ends: list[int]
    context: list[int]


@dataclass(frozen=True)
class PackedBatch:
    """Packs as tensors.

    Args:
        ids: (packs, tokens), padded on the right with 0.
        positions: (packs, tokens).
        slots: (packs, tokens), where keys and values go; padding goes to slot 0.
        context: (packs, cached), slots of what all tokens of a pack see, padded on the right.
        seen: (packs, tokens, cached + tokens), true where a token sees another; every token sees itself.
        key_positions: (packs, cached + tokens), of what they see.
    """

    ids: Tensor
    positions: Tensor
    slots: Tensor
    context: Tensor
    seen: Tensor
    key_positions: Tensor


def plan(nodes: Sequence[Node]) -> list[list[Pack]]:
    """Packs in stages: those of one stage depend only on earlier stages and on what is cached already.

    `nodes` are those to be computed, parents before children. Of a subtree that is too large for one pack, the trunk
    goes to one stage and the branches to the next, so that no branch computes the trunk again.
    """
    chosen = set(nodes)  # the tree below also has nodes that are cached already
    children: dict[Node, list[Node]] = {node: [] for node in nodes}
    sizes = dict.fromkeys(nodes, 1)  # of the subtrees
    for node in nodes:
        if node.parent in chosen:
            children[node.parent].append(node)
    for node in reversed(nodes):
        if node.parent in chosen:
            sizes[node.parent] += sizes[node]
    stages: list[list[Pack]] = []
    waiting = [(node, 0) for node in nodes if node.parent not in chosen]
    while waiting:
        root, stage = waiting.pop()
        if stage == len(stages):
            stages.append([])
        if sizes[root] <= PACK_TOKENS:  # as a whole: one forward for all its branches
            stages[stage].append(_subtree(root, children, sizes))
            continue
        # The trunk is the chain down to the first fork. It is one sequence and attends causally; what follows it finds
        # it cached.
        trunk = [root]
        while len(children[trunk[-1]]) == 1 and len(trunk) < PACK_TOKENS:
            trunk += children[trunk[-1]]
        stages[stage].append(Pack(trunk, [len(trunk)] * len(trunk), _slots_before(root)))
        waiting.extend((child, stage + 1) for child in children[trunk[-1]])
    return stages


def _subtree(root: Node, children: dict[Node, list[Node]], sizes: dict[Node, int]) -> Pack:
    """All nodes below `root` as one pack, in depth-first order, so that a mask of intervals (`ends`) is enough."""
    order: list[Node] = []
    ends, stack = [], [root]
    while stack:
        node = stack.pop()
        ends.append(len(order) + sizes[node])
        order.append(node)
        stack.extend(children[node])
    return Pack(order, ends, _slots_before(root))


def _slots_before(node: Node) -> list[int]:
    """The slots of the node's ancestors, in the order of their positions."""
    slots = []
    parent = node.parent
    while parent is not None and parent.parent is not None:  # the root of the prefix tree holds no token
        slots.append(parent.slot)
        parent = parent.parent
    return slots[::-1]


def batches(packs: list[Pack]) -> Iterator[list[Pack]]:
    """Packs of similar length together, as many as the mask's memory allows."""
    batch: list[Pack] = []
    cached = 0
    for pack in sorted(packs, key=lambda pack: (len(pack.nodes), len(pack.context))):  # ascending: `pack` is longest
        longest, cached = len(pack.nodes), max(cached, len(pack.context))
        cells = (len(batch) + 1) * longest * (cached + longest)
        if batch and (cells > BATCH_CELLS or longest > LENGTH_RATIO * len(batch[0].nodes)):
            yield batch
            batch, cached = [], len(pack.context)
        batch.append(pack)
    if batch:
        yield batch


def tensors(packs: Sequence[Pack], device: torch.device) -> PackedBatch:
    """The packs of one forward, padded."""
    longest = max(len(pack.nodes) for pack in packs)
    cached = max(len(pack.context) for pack in packs)
    index = torch.arange(longest)
    ends = padded([pack.ends for pack in packs], longest)  # (packs, tokens)
    # A token attends to i if i does not come after it and if it lies in the subtree of i: (packs, tokens, tokens).
    within = (index[None, None, :] <= index[None, :, None]) & (index[None, :, None] < ends[:, None, :])
    within |= torch.eye(longest, dtype=torch.bool)  # padding attends to itself: a softmax over nothing is NaN
    lengths = torch.tensor([len(pack.context) for pack in packs])
    # Ancestors outside the pack are seen by all its tokens alike: (packs, tokens, cached).
    before = (torch.arange(cached)[None, :] < lengths[:, None])[:, None, :].expand(-1, longest, -1)
    positions = padded([[node.depth for node in pack.nodes] for pack in packs], longest)
    return PackedBatch(
        ids=padded([[node.token for node in pack.nodes] for pack in packs], longest).to(device),
        positions=positions.to(device),
        slots=padded([[node.slot for node in pack.nodes] for pack in packs], longest).to(device),
        context=padded([pack.context for pack in packs], cached).to(device),
        seen=torch.cat([before, within], dim=-1).to(device),
        key_positions=torch.cat([torch.arange(cached).expand(len(packs), -1), positions], dim=-1).to(device),
    )


def padded(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    """int64 (rows, length), each row padded on the right."""
    return torch.tensor([[*row, *[PADDING] * (length - len(row))] for row in rows], dtype=torch.long)
