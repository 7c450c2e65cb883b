"""The records that the parts of psr exchange, and their JSON form.

Frozen dataclasses and nothing else: no tokenizer, model, engine or file is known here. A record is written as the
JSON object of its fields (`to_json`) and read back equal (`trajectory_from_json`), so that the traces on disk hold
everything about a search.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Event = Literal["kept", "rolled_back", "tied"]
"""What became of an expanded node: it extends the solution, a later roll-back discarded it, or all scores tied."""

Verifier = Callable[[str, Sequence[str], str], bool]
"""(problem, previous steps, candidate step) -> whether that step is right; exact, for procedural problems."""


@dataclass(frozen=True)
class Problem:
    """A question as the self-rewarding iterations see it: there is no field that could hold an answer."""

    id: str
    problem: str


@dataclass(frozen=True)
class GoldProblem:
    """A question with its reference answer, for evaluation only.

    Args:
        answer: the reference answer; empty if there is none, so that the problem does not count in an accuracy.
        unit: unit of the answer; a prediction may name it or not.
        tolerance: how much a number may differ from the answer.
        several: the answer lists several values, all of which are required, in any order.
    """

    id: str
    problem: str
    answer: str
    unit: str = ""
    tolerance: float | None = None
    several: bool = False

    def without_answer(self) -> Problem:
        return Problem(self.id, self.problem)


@dataclass(frozen=True)
class Judgement:
    """One verdict: `first` was shown as A, `second` as B; `winner` is the index that won, None if unparsable."""

    first: int
    second: int
    winner: int | None
    text: str = ""


@dataclass(frozen=True)
class Candidate:
    """One sampled next step. `token_ids` are those that the engine sampled, and are trained on; `text` decodes them."""

    token_ids: tuple[int, ...]
    text: str
    logprob: float
    final: bool


@dataclass(frozen=True)
class StepNode:
    """One expansion: all candidates at a prefix of `depth` steps, their verdicts and scores (equation 2)."""

    depth: int
    candidates: tuple[Candidate, ...]
    judgements: tuple[Judgement, ...]
    scores: tuple[int, ...]
    chosen: int
    rejected: int
    event: Event

    @property
    def margin(self) -> int:
        return self.scores[self.chosen] - self.scores[self.rejected]


@dataclass(frozen=True)
class Trajectory:
    """One searched problem: every node in the order of expansion; the nodes `kept`, in order, are the solution."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    nodes: tuple[StepNode, ...]
    finished: bool
    weights_version: str
    seconds: float = field(default=0.0, compare=False)

    @property
    def kept(self) -> tuple[StepNode, ...]:
        return tuple(node for node in self.nodes if node.event == "kept")

    @property
    def solution(self) -> str:
        """The text of the chosen steps, joined."""
        return "".join(node.candidates[node.chosen].text for node in self.kept)


@dataclass(frozen=True)
class StepPair:
    """A preference at one prefix: the prompt is the problem and the chosen steps so far (equation 6).

    Args:
        weight: what its loss is multiplied by.
        label: probability that the chosen step is the better one.
    """

    problem_id: str
    depth: int
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    margin: int
    weight: float = 1.0
    label: float = 1.0


def step_pairs(
    trajectory: Trajectory, min_margin: int = 1, weight: Callable[[StepNode], float] = lambda node: 1.0
) -> list[StepPair]:
    """One step pair per kept node whose best and worst scores differ by `min_margin`, with the `weight` of the node."""
    pairs = []
    prompt = trajectory.prompt_ids
    for node in trajectory.kept:
        chosen = node.candidates[node.chosen].token_ids
        rejected = node.candidates[node.rejected].token_ids
        if node.margin >= max(min_margin, 1):
            place = trajectory.problem.id, node.depth
            pairs.append(StepPair(*place, prompt, chosen, rejected, node.margin, weight(node)))
        prompt = prompt + chosen
    return pairs


def to_json(record: Trajectory | StepPair | Problem | GoldProblem) -> dict[str, Any]:
    """The record as a JSON-ready dictionary."""
    return asdict(record)


def trajectory_from_json(row: dict[str, Any]) -> Trajectory:
    """The inverse of `to_json` for a Trajectory. Raises KeyError or TypeError on a row of another shape."""
    return Trajectory(
        problem=Problem(**row["problem"]),
        prompt_ids=tuple(row["prompt_ids"]),
        nodes=tuple(_node(node) for node in row["nodes"]),
        finished=row["finished"],
        weights_version=row["weights_version"],
        seconds=row["seconds"],
    )


def _node(row: dict[str, Any]) -> StepNode:
    candidates = tuple(Candidate(**{**c, "token_ids": tuple(c["token_ids"])}) for c in row["candidates"])
    judgements = tuple(Judgement(**judgement) for judgement in row["judgements"])
    return StepNode(**{**row, "candidates": candidates, "judgements": judgements, "scores": tuple(row["scores"])})
