"""Which token sequences have keys and values in the pool, as a tree: a common prefix is there once.

Knows token ids and slot numbers. Does not know tensors: slots are rows of whatever pool the owner keeps.
"""

from collections.abc import Sequence

PADDING = 0
"""A slot that is never given away: index tensors are padded with it."""
EVICTED_SHARE = 0.25
"""At least so much of the pool is freed at a time: finding the oldest nodes means looking at all of them."""


class Node:
    """One token after its ancestors. `depth` is its position; `used` the last round that needed it."""

    __slots__ = ("children", "depth", "parent", "slot", "token", "used")

    def __init__(self, token: int, parent: "Node | None", slot: int, used: int) -> None:
        self.token, self.parent, self.slot, self.used = token, parent, slot, used
        self.depth: int = -1 if parent is None else parent.depth + 1
        self.children: dict[int, Node] = {}


class PrefixTree:
    """Slots 1 to `capacity`, given to the tokens that were needed last.

    What a round has touched stays until the next round begins; of the rest, the least recently used goes first. A node
    is at least as recent as its children, so no prefix goes before what continues it.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._root = Node(-1, None, PADDING, 0)
        self._free: list[int] = []
        self._fresh = 1  # slots from here on were never used: a list of all of them could be long
        self._round = 0

    def begin_round(self) -> None:
        self._round += 1

    def path(self, ids: Sequence[int]) -> list[Node]:
        """The nodes of the longest known prefix of `ids`, kept for this round."""
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
        """New nodes for `ids` below the end of `path`, or None where there is no room for them in this round."""
        if self._room < len(ids):
            self._evict(len(ids))
        if self._room < len(ids):
            return None
        node, added = path[-1] if path else self._root, []
        for token in ids:
            child = Node(token, node, self._slot(), self._round)
            node.children[token] = child
            added.append(child)
            node = child
        return added

    @property
    def slots(self) -> int:
        """One more than the highest slot that was ever given."""
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
        """Free the least recently used nodes: rounds as a whole, so that subtrees go as a whole."""
        nodes, stack = [], list(self._root.children.values())
        while stack:
            node = stack.pop()
            nodes.append(node)
            stack.extend(node.children.values())
        old = sorted(node.used for node in nodes if node.used < self._round)
        count = min(len(old), max(needed - self._room, int(EVICTED_SHARE * self.capacity)))
        if count == 0:
            return
        newest = old[count - 1]
        for node in nodes:
            if node.used <= newest:
                self._free.append(node.slot)
                assert node.parent is not None
                node.parent.children.pop(node.token, None)
