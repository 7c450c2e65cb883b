"""How much of a search's prompts a perfect prefix cache would hold, computed from the traces.

Replays the requests of a search in their order and counts, for every prompt, the longest beginning that an earlier
prompt or completion had: more than that no engine can reuse. Knows traces and prompts; not the engine that was asked.
"""

from collections.abc import Iterable

from psr.encoding import Encoder
from psr.engines.usage import Usage
from psr.records import Candidate, StepNode, Trajectory


class PrefixTree:
    """All token sequences seen so far, by their prefixes."""

    def __init__(self) -> None:
        self._root: dict[int, dict] = {}

    def add(self, ids: Iterable[int]) -> int:
        """Remember a sequence; the length of its longest prefix that was there before."""
        node, known, new = self._root, 0, False
        for token in ids:
            new = new or token not in node
            known += not new
            node = node.setdefault(token, {})
        return known


def best_usage(trajectories: Iterable[Trajectory], encoder: Encoder) -> dict[str, Usage]:
    """Prompt tokens of a search, and how many of them a perfect cache would hold, by kind of request.

    At least the last token of a prompt is always computed: it gives the first new one.
    """
    tree, usage = PrefixTree(), {"candidates": Usage(), "verdicts": Usage()}

    def ask(kind: str, prompt: tuple[int, ...]) -> None:
        cached = min(tree.add(prompt), len(prompt) - 1)
        usage[kind] = usage[kind] + Usage(requests=1, prompt_tokens=len(prompt), cached_tokens=cached)

    for trajectory in trajectories:
        for steps, node in prefixes(trajectory):
            prompt = trajectory.prompt_ids + tuple(token for step in steps for token in step.token_ids)
            for _ in node.candidates:
                ask("candidates", prompt)
            for candidate in node.candidates:
                tree.add(prompt + candidate.token_ids)
            so_far = "".join(step.text for step in steps)
            for judgement in node.judgements:
                a, b = (node.candidates[i].text for i in (judgement.first, judgement.second))
                ask("verdicts", encoder.judge(trajectory.problem.problem, so_far, a, b))
    return usage


def prefixes(trajectory: Trajectory) -> Iterable[tuple[list[Candidate], StepNode]]:
    """Every node in the order of expansion, with the chosen steps that it continued."""
    chain: list[Candidate] = []
    for node in trajectory.nodes:
        del chain[node.depth :]
        yield list(chain), node
        if node.event != "tied":
            chain.append(node.candidates[node.chosen])
