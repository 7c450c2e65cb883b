"""The prefix cache as a tree of tokens: which sequences have keys and values in the pool, common prefixes only once.

Knows token ids and slot numbers. Does not know tensors: a slot is an index into the owner's pool.
"""

from collections.abc import Sequence

PADDING = 0
"""A slot that no token gets: index tensors are padded with it."""
EVICTED_SHARE = 0.25
"""At least this share of the pool is freed at a time: to find the oldest nodes, all have to be looked at."""


class Node:
    """One token after its ancestors. `depth` is its position, `used` the last round that needed it."""

    # There is a node for every cached token, so its size counts.
    __slots__ = ("children", "depth", "parent", "slot", "token", "used")

    def __init__(self, token: int, parent: "Node | None", slot: int, used: int) -> None:
        self.token, self.parent, self.slot, self.used = token, parent, slot, used
        self.depth: int = -1 if parent is None else parent.depth + 1
        self.children: dict[int, Node] = {}


class PrefixTree:
    """Slots 1 to `capacity`, held by the tokens that were used last (LRU).

    What a round has touched stays until the next round begins; of the rest, the least recently used is evicted first. A
    node is at least as recent as its children, so no prefix is evicted before its continuations.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._root = Node(-1, None, PADDING, 0)
        self._free: list[int] = []
        self._fresh = 1  # slots from here on were never used; a list of all free ones could have millions of entries
        self._round = 0

    def begin_round(self) -> None:
        self._round += 1

    def path(self, ids: Sequence[int]) -> list[Node]:
        """The nodes of the longest cached prefix of `ids`, which cannot be evicted in this round."""
        node, found, now = self._root, [], self._round
        for token in ids:
            child = node.children.get(token)
            if child is None:
                break
            child.used = now
            found.append(child)
            node = child
        return found

    def extend(self, path: Sequence[Node], ids: Sequence[int]) -> list[Node] | None:
        """Add nodes for `ids` below the end of `path`; None where there is no room for them in this round."""
        if self._room < len(ids):
            self._evict(len(ids))
        if self._room < len(ids):  # the rest of the pool is in use by this round
            return None
        # Below a node that this round has touched, and so safe from the eviction above.
        node, added = path[-1] if path else self._root, []
        for token in ids:
            child = Node(token, node, self._slot(), self._round)
            node.children[token] = child
            added.append(child)
            node = child
        return added

    @property
    def slots(self) -> int:
        """One more than the highest slot that was ever in use: how large the pool has to be."""
        return self._fresh

    @property
    def _room(self) -> int:
        return len(self._free) + self.capacity + 1 - self._fresh

    def _slot(self) -> int:
        if self._free:
            return self._free.pop()
        self._fresh += 1
        return self._fresh - 1

    def _evict(self, needed: int) -> None:
        """Free the least recently used nodes, all of a round at once, so that subtrees are evicted as a whole."""
        nodes, stack = [], list(self._root.children.values())
        while stack:
            node = stack.pop()
            nodes.append(node)
            stack.extend(node.children.values())
        old = sorted(node.used for node in nodes if node.used < self._round)
        # At least what is needed and what makes the walk over all nodes worth it, at most what no round has in use.
        count = min(len(old), max(needed - self._room, int(EVICTED_SHARE * self.capacity)))
        if count == 0:
            return
        # A cut by round: a child is never more recent than its parent, so no node is left without its ancestors.
        newest = old[count - 1]
        for node in nodes:
            if node.used <= newest:
                self._free.append(node.slot)
                assert node.parent is not None
                node.parent.children.pop(node.token, None)
