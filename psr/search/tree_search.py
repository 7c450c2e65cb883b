"""Monte Carlo tree search over steps, valued by a process reward model: the source of candidates for EFT pairs.

Every iteration walks from the root to a leaf, expands it with candidates for the next step, simulates some further
steps from the best of them and adds the value to all nodes of the path. The walk takes the child with the greatest

    PUCT:  Q + c P sqrt(N) / (1 + n)        P: the child's share of P("+") among its siblings (Silver et al. 2017)
    UCT:   Q + c sqrt(ln N / n)             unvisited children first (Kocsis and Szepesvari 2006)

with Q the mean value of the child, n its visits, N those of its parent. The value of a simulation is the lowest P("+")
of its steps: a solution is as good as its worst step. Does not know which engine answers, or any reference answer.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from psr.engines.base import Engine, EngineError, Origin, PromptTooLong, Sampling
from psr.errors import UsageError
from psr.prompts.encoder import Encoder
from psr.records import Candidate, Problem
from psr.search.prm import StepScorer


@dataclass(frozen=True)
class TreeSettings:
    """How a tree is grown; the defaults are the paper's where it states them.

    Args:
        iterations: walks from the root, each with one expansion (paper: 100).
        depth: most steps of a simulation, the expanded one included (paper: 3).
        width: candidates per expansion.
        temperature: sampling temperature of candidates (paper: 0.7).
        top_p: nucleus of candidates (paper: 0.95).
        selection: rule of the walk, "puct" or "uct".
        exploration: c of that rule.
        max_steps: a solution that is not finished after this many steps is not continued.
        max_step_tokens: a candidate that does not end its step within this many tokens is discarded.
        seed: seed of the whole search; every problem and request derives its own.
    """

    iterations: int = 100
    depth: int = 3
    width: int = 6
    temperature: float = 0.7
    top_p: float = 0.95
    selection: Literal["puct", "uct"] = "puct"
    exploration: float = 1.0
    max_steps: int = 20
    max_step_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "depth", "width", "max_steps", "max_step_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"search.{name} is {getattr(self, name)}: it must be at least 1")


@dataclass(frozen=True)
class Layer:
    """The distinct candidates for the next step after `steps`, and their P("+")."""

    steps: tuple[str, ...]
    candidates: tuple[str, ...]
    plus: tuple[float, ...]


@dataclass(frozen=True)
class SearchedTree:
    """The layers of one problem's tree in the order of expansion; simulated steps are not among them."""

    problem: Problem
    layers: tuple[Layer, ...]
    weights_version: str


def tree_from_json(row: dict[str, Any]) -> SearchedTree:
    """The inverse of `dataclasses.asdict`. Raises KeyError or TypeError on a row of another shape."""
    layers = tuple(Layer(*(tuple(layer[name]) for name in ("steps", "candidates", "plus"))) for layer in row["layers"])
    return SearchedTree(Problem(**row["problem"]), layers, row["weights_version"])


@dataclass
class _Node:
    """A step in the tree; the root has none."""

    candidate: Candidate | None = None
    plus: float = 1.0
    parent: "_Node | None" = None
    children: list["_Node"] = field(default_factory=list)
    visits: int = 0
    total: float = 0.0

    @property
    def path(self) -> list["_Node"]:
        """From the first step to this one."""
        return [] if self.candidate is None or self.parent is None else [*self.parent.path, self]


@dataclass
class _Policy:
    """Samples and scores steps for one problem."""

    problem: Problem
    engine: Engine
    scorer: StepScorer
    encoder: Encoder
    settings: TreeSettings
    prompt: tuple[int, ...]
    versions: set[str] = field(default_factory=set)
    asked: int = 0

    async def next_steps(self, path: Sequence[Candidate], n: int) -> list[tuple[Candidate, float]]:
        """Distinct next steps with their P("+"); none where the context or `max_steps` is exhausted."""
        if len(path) >= self.settings.max_steps:
            return []
        prefix = self.prompt + tuple(token for step in path for token in step.token_ids)
        self.asked += 1  # a leaf that found nothing is expanded again: with the same seed it would find the same
        seed = zlib.crc32(f"{self.settings.seed}/{self.problem.id}/{self.asked}".encode())
        settings, stop = self.settings, (self.encoder.prompts.step_stop,)
        sampling = Sampling(settings.max_step_tokens, settings.temperature, settings.top_p, n, seed, stop)
        try:
            [completions] = await self.engine.generate([prefix], sampling, Origin(self.problem.id, "candidates"))
            self.versions.update(completion.weights_version for completion in completions)
            cut = (self.encoder.step(c.token_ids, c.logprob, c.finish_reason) for c in completions)
            # Without the white space that ends a step: an intermediate and a final step may say the same.
            distinct = list({c.text.strip(): c for c in cut if c is not None and c.text.strip()}.values())
            steps = [step.text for step in path]
            plus = await self.scorer(self.problem, steps, [c.text for c in distinct]) if distinct else []
        except PromptTooLong:
            if not path:
                raise
            return []
        # Rounded, so that the order of floating-point sums in a batch cannot change the course of the search.
        return [(candidate, round(one, 5)) for candidate, one in zip(distinct, plus, strict=True)]


async def tree_search(
    problem: Problem, engine: Engine, scorer: StepScorer, encoder: Encoder, settings: TreeSettings
) -> SearchedTree:
    """Search one problem.

    Raises:
        PromptTooLong: the problem itself leaves no room.
        EngineError: completions came from different weights.
    """
    policy = _Policy(problem, engine, scorer, encoder, settings, encoder.reason(problem.problem))
    root, layers = _Node(), []
    for _ in range(settings.iterations):  # one after the other: each walk depends on the visits of those before
        leaf = select(root, settings)
        value = leaf.plus  # of a leaf that cannot be expanded: visits still count, and lead later walks elsewhere
        if leaf.candidate is None or not leaf.candidate.final:
            steps = [node.candidate for node in leaf.path if node.candidate is not None]
            found = await policy.next_steps(steps, settings.width)
            leaf.children = [_Node(candidate, plus, leaf) for candidate, plus in found]
            if found:
                texts = tuple(candidate.text.strip() for candidate, _ in found)
                layers.append(Layer(tuple(s.text.strip() for s in steps), texts, tuple(plus for _, plus in found)))
                # Only the best child is simulated; its siblings have their P("+") as a prior and wait for a visit.
                leaf = max(leaf.children, key=lambda child: child.plus)
                value = await simulate(leaf, policy)
        backpropagate(leaf, value)
    if len(policy.versions) > 1:
        raise EngineError(f"problem {problem.id} was answered by different weights: {', '.join(policy.versions)}")
    return SearchedTree(problem, tuple(layers), "".join(policy.versions))


def select(root: _Node, settings: TreeSettings) -> _Node:
    """The leaf to which the selection rule leads."""
    node = root
    while node.children:
        node = max(node.children, key=lambda child: worth(child, settings))
    return node


def worth(child: _Node, settings: TreeSettings) -> float:
    """The value that the selection rule maximizes over the children."""
    assert child.parent is not None
    mean = child.total / child.visits if child.visits else 0.0  # Q
    if settings.selection == "puct":
        among = sum(sibling.plus for sibling in child.parent.children)
        share = child.plus / among if among else 1 / len(child.parent.children)  # P
        return mean + settings.exploration * share * math.sqrt(child.parent.visits) / (1 + child.visits)
    if not child.visits:
        return math.inf  # UCT has no prior: every child is tried once
    return mean + settings.exploration * math.sqrt(math.log(child.parent.visits) / child.visits)


async def simulate(leaf: _Node, policy: _Policy) -> float:
    """The lowest P("+") of the leaf's step and of up to `depth` - 1 sampled steps after it."""
    path = [node.candidate for node in leaf.path if node.candidate is not None]
    value = leaf.plus
    for _ in range(policy.settings.depth - 1):
        found = [] if path[-1].final else await policy.next_steps(path, 1)
        if not found:
            break
        [(candidate, plus)] = found
        path.append(candidate)  # of the simulation only: its steps do not join the tree
        value = min(value, plus)
    return value


def backpropagate(leaf: _Node, value: float) -> None:
    node: _Node | None = leaf
    while node is not None:
        node.visits += 1
        node.total += value
        node = node.parent


def layer_pairs(tree: SearchedTree, min_margin: float) -> list[dict[str, Any]]:
    """EFT rows: the best and the worst candidate of every layer by P("+"), if they differ by `min_margin`."""
    rows = []
    for number, layer in enumerate(tree.layers):
        best, worst = max(layer.plus), min(layer.plus)
        if len(layer.plus) > 1 and best - worst >= max(min_margin, 1e-9):  # never a pair of equals
            rows.append(
                {
                    "id": f"{tree.problem.id}/{number}",
                    "problem": tree.problem.problem,
                    "previous_steps": list(layer.steps),
                    "chosen": layer.candidates[layer.plus.index(best)],
                    "rejected": layer.candidates[layer.plus.index(worst)],
                    "margin": round(best - worst, 6),
                }
            )
    return rows
