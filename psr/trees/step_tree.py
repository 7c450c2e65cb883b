"""Step trees: sequences with shared prefixes as one token sequence that holds every distinct prefix once.

All step pairs of a trajectory share the problem and the growing chain of chosen steps, and chosen and rejected steps
often begin alike. A step tree is the prefix tree of their tokens: a token is computed once, attends only to its own
path, and its position id counts along that path. What a causal model computes for a token depends only on its prefix,
so log-probabilities and gradients equal those of the sequences one by one.

Knows token ids. Does not know pairs, losses, tensors or models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

ROOT = -1
"""The parent of a token that begins a sequence."""


@dataclass(frozen=True)
class Sample:
    """A prompt and the completion that is scored after it."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True)
class StepTree:
    """The prefix tree of some samples, depth first, largest subtree first, so that the longest chain is contiguous.

    `parents[t]` is the index of the token before token t on its path, or ROOT. `completions[i]` are the indices of the
    completion tokens of sample i; samples may share them.
    """

    token_ids: tuple[int, ...]
    parents: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def positions(self) -> list[int]:
        """The position id of each token: how many tokens stand before it on its path."""
        positions: list[int] = []
        for parent in self.parents:  # always earlier than its child, so its position is known
            positions.append(0 if parent == ROOT else positions[parent] + 1)
        return positions

    @property
    def ends(self) -> list[int]:
        """The tree's attention mask as one number per token: the tokens k, ..., ends[k] - 1 attend to token k.

        They are the tokens of its subtree, which is contiguous in depth-first order. Trees that follow each other in a
        row do not attend to each other: no interval leaves its tree.
        """
        ends = list(range(1, len(self) + 1))
        for token in range(len(self) - 1, -1, -1):  # children first: a subtree is complete when its parent takes it in
            parent = self.parents[token]
            if parent != ROOT:
                ends[parent] = max(ends[parent], ends[token])
        return ends

    @property
    def scored(self) -> list[int]:
        """The tokens that at least one completion holds, ascending."""
        return sorted({token for completion in self.completions for token in completion})

    @property
    def attended(self) -> int:
        """How many (query, key) pairs the mask admits."""
        return sum(self.positions) + len(self)  # every token attends to its ancestors and to itself


def step_tree(samples: Sequence[Sample]) -> StepTree:
    """The prefix tree of `samples`: a trajectory's pairs, several candidates of a step, whole responses, or one sample.

    Raises:
        ValueError: a completion is empty, or a prompt, so that nothing predicts the completion's first token.
    """
    if any(not sample.prompt_ids or not sample.completion_ids for sample in samples):
        raise ValueError("a sample needs a token to score and one before it: its prompt or completion is empty")
    if len(samples) == 1:  # most of supervised training: a dictionary entry for every token would be wasted
        return _chain(samples[0])
    # Walk every sample down from the root, adding a node wherever it leaves the tree so far.
    token_ids: list[int] = []
    parents: list[int] = []
    children: dict[tuple[int, int], int] = {}
    completions = []
    for sample in samples:
        path = []
        node = ROOT
        for token in (*sample.prompt_ids, *sample.completion_ids):
            child = children.setdefault((node, token), len(token_ids))
            if child == len(token_ids):  # it was not there before
                token_ids.append(token)
                parents.append(node)
            path.append(child)
            node = child
        completions.append(path[len(sample.prompt_ids) :])
    # Nodes are numbered by when they were added; in depth-first order every subtree is an interval, as `ends` needs.
    order = _depth_first(parents)
    place = {node: index for index, node in enumerate(order)}
    return StepTree(
        tuple(token_ids[node] for node in order),
        tuple(ROOT if parents[node] == ROOT else place[parents[node]] for node in order),
        tuple(tuple(place[node] for node in path) for path in completions),
    )


def _chain(sample: Sample) -> StepTree:
    """The tree of one sample."""
    indices = range(len(sample))
    completion = tuple(indices[len(sample.prompt_ids) :])
    return StepTree((*sample.prompt_ids, *sample.completion_ids), tuple(range(ROOT, len(sample) - 1)), (completion,))


def _depth_first(parents: list[int]) -> list[int]:
    """The nodes of a forest in which parents stand before children: depth first, the largest subtree first."""
    sizes = [1] * len(parents)  # of the subtrees
    children: dict[int, list[int]] = {}
    for node in range(len(parents) - 1, -1, -1):
        children.setdefault(parents[node], []).append(node)
        if parents[node] != ROOT:
            sizes[parents[node]] += sizes[node]
    order: list[int] = []
    waiting = [ROOT]  # a stack of our own: paths are longer than Python's recursion limit
    while waiting:
        node = waiting.pop()
        if node != ROOT:
            order.append(node)
        waiting += sorted(children.get(node, []), key=sizes.__getitem__)  # the largest is popped first
    return order
