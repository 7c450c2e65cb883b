"""Which common prefixes of a group of prompts to send ahead, so that the server computes each of them once.

Requests that reach a server together are prefilled together: none finds in the cache what the others are about to put
there. Knows token ids only.
"""

from collections.abc import Iterable, Sequence

Tokens = tuple[int, ...]


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))


def shared_prefixes(prompts: Iterable[Tokens], known: Sequence[Tokens], least: int) -> list[list[Tokens]]:
    """Prefixes to prefill ahead, in levels: those of one list can be sent together, one list after the other.

    Args:
        prompts: what is about to be asked; repeated prompts (several samples) share all of it.
        known: sequences that the server has computed before.
        least: a prefix is sent ahead if that saves at least this many tokens of the prompts that share it.
    """
    levels: list[list[Tokens]] = []

    def visit(group: list[Tokens], covered: int, level: int) -> None:
        prefix = group[0][: common_length(group[0], group[-1])]
        # Tokens of the prefix that will be cached anyway, by an earlier request or by an outer level.
        covered = max([covered, *(common_length(prefix, sequence) for sequence in known)])
        # One prompt of the group has to compute the prefix; sending it ahead spares all others that.
        if (len(group) - 1) * (len(prefix) - covered) >= least:
            levels.extend([[]] * (level + 1 - len(levels)))
            levels[level] = [*levels[level], prefix]
            covered, level = len(prefix), level + 1
        # Below the prefix the prompts part: a subgroup may share more among itself.
        branches: dict[int, list[Tokens]] = {}
        for prompt in group:
            if len(prompt) > len(prefix):
                branches.setdefault(prompt[len(prefix)], []).append(prompt)
        for branch in branches.values():
            if len(branch) > 1:
                visit(branch, covered, level)

    ordered = sorted(prompts)  # so that a group's common prefix is that of its first and its last prompt
    if len(ordered) > 1:
        visit(ordered, 0, 0)
    return levels
