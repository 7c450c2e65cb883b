"""The hit rate of a perfect prefix cache on a search's prompts, computed from the traces.

Replays the requests of a search in order and finds, for every prompt, its longest prefix that is also a prefix of an
earlier prompt or completion: no engine can reuse more than that. Knows traces and prompts, not the engine in use.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from psr.engines.usage import Usage
from psr.prompts.encoder import Encoder
from psr.records import Candidate, StepNode, Trajectory


class PrefixTree:
    """All token sequences seen so far, by their prefixes."""

    def __init__(self) -> None:
        self._root: dict[int, dict] = {}

    def add(self, ids: Iterable[int]) -> int:
        """Add a sequence; the length of its longest prefix that was there before."""
        node, known, new = self._root, 0, False
        for token in ids:
            new = new or token not in node  # once off the known path, all that follows is new
            known += not new
            node = node.setdefault(token, {})
        return known


@dataclass(frozen=True)
class Asked:
    """One prompt of a search: `sequences` were sampled from it, of which the search used `completions`."""

    kind: str
    prompt: tuple[int, ...]
    sequences: int = 1
    completions: tuple[tuple[int, ...], ...] = ()


def asked(trajectories: Iterable[Trajectory], encoder: Encoder) -> Iterable[Asked]:
    """The requests of the search, in its order."""
    for trajectory in trajectories:
        for steps, node in prefixes(trajectory):
            prompt = trajectory.prompt_ids + tuple(token for step in steps for token in step.token_ids)
            completions = tuple(candidate.token_ids for candidate in node.candidates)
            # Discarded candidates are not in the traces, so a node may count fewer sequences than were sampled.
            yield Asked("candidates", prompt, len(completions), completions)
            so_far = "".join(step.text for step in steps)
            for judgement in node.judgements:
                a, b = (node.candidates[i].text for i in (judgement.first, judgement.second))
                yield Asked("verdicts", encoder.judge(trajectory.problem.problem, so_far, a, b))


def best_usage(trajectories: Iterable[Trajectory], encoder: Encoder) -> dict[str, Usage]:
    """Prompt tokens of a search, and how many of them a perfect prefix cache would hold, by kind of request.

    The last token of a prompt is always computed, for each of its sequences: its logits give the first new token.
    """
    tree, usage = PrefixTree(), {"candidates": Usage(), "verdicts": Usage()}
    for one in asked(trajectories, encoder):
        for _ in range(one.sequences):
            cached = min(tree.add(one.prompt), len(one.prompt) - 1)
            usage[one.kind] += Usage(requests=1, prompt_tokens=len(one.prompt), cached_tokens=cached)
        for completion in one.completions:
            tree.add(one.prompt + completion)  # the chosen step is the prefix of the next request
    return usage


def fewest_prompt_tokens(trajectories: Iterable[Trajectory], encoder: Encoder) -> int:
    """Prompt tokens that any engine has to compute: every distinct prefix once, except what it has decoded itself.

    Sequences of the same prompt share all of it. A prompt that is cached as a whole costs its last token.
    """
    tree, prompts, fewest = PrefixTree(), set(), 0
    for one in asked(trajectories, encoder):
        if one.prompt not in prompts:
            prompts.add(one.prompt)
            fewest += max(1, len(one.prompt) - tree.add(one.prompt))
        for completion in one.completions:
            tree.add(one.prompt + completion)
    return fewest


def prefixes(trajectory: Trajectory) -> Iterable[tuple[list[Candidate], StepNode]]:
    """Every node in the order of expansion, with the chosen steps that it continued."""
    chain: list[Candidate] = []
    for node in trajectory.nodes:
        del chain[node.depth :]  # a node less deep than the chain follows a roll-back
        yield list(chain), node
        if node.event != "tied":
            chain.append(node.candidates[node.chosen])
