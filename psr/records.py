"""The records that the parts of psr exchange, and their JSON form.

Frozen dataclasses and nothing else: no tokenizer, model, engine or file is known here. A record is written as the
JSON object of its fields (`to_json`) and read back equal (`trajectory_from_json`), so that the traces on disk hold
everything about a search.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

Event = Literal["kept", "rolled_back", "tied"]
"""What became of an expanded node: it extends the solution, a later roll-back discarded it, or all scores tied."""

Verifier = Callable[[str, Sequence[str], str], bool | None]
"""(problem, previous steps, candidate step) -> whether that step is right, None where that is undecided."""


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
        chosen_logprob: the engine's log-probability of `chosen_ids`, of final steps: others were cut out of a longer
            completion, whose log-probability it is.
        weight: what its loss is multiplied by.
        label: probability that the chosen step is the better one.
    """

    problem_id: str
    depth: int
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    margin: int
    chosen_logprob: float | None = field(default=None, compare=False)  # rounded by what it was computed beside
    weight: float = 1.0
    label: float = 1.0


def step_pairs(
    trajectory: Trajectory, min_margin: int = 1, weight: Callable[[StepNode], float] = lambda node: 1.0
) -> list[StepPair]:
    """One step pair per kept node whose best and worst scores differ by `min_margin`, with the `weight` of the node."""
    pairs = []
    prompt = trajectory.prompt_ids
    for node in trajectory.kept:
        best, rejected = node.candidates[node.chosen], node.candidates[node.rejected].token_ids
        logprob = best.logprob if best.final else None
        if node.margin >= max(min_margin, 1):
            name, counts = trajectory.problem.id, weight(node)
            pairs.append(StepPair(name, node.depth, prompt, best.token_ids, rejected, node.margin, logprob, counts))
        prompt = prompt + best.token_ids
    return pairs


def to_json(record: Trajectory | StepPair | Problem | GoldProblem) -> dict[str, Any]:
    """The record as a JSON-ready dictionary."""
    return asdict(record)


def to_line(record: Trajectory) -> str:
    """The record as the line of a journal: the text of `to_json`, without the copy that it makes of everything."""
    return json.dumps(record, ensure_ascii=False, default=vars)


def trajectory_from_json(line: str | bytes) -> Trajectory:
    """The inverse of `to_line`.

    Raises:
        ValueError: no JSON, or of another shape; the message names the field.
    """
    try:
        trajectory = _reader().validate_json(line, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, fault['loc'])) or 'the line'}: {fault['msg']}") from None
    for number, node in enumerate(trajectory.nodes):
        shown = (i for judgement in node.judgements for i in (judgement.first, judgement.second))
        count = len(node.candidates)
        if len(node.scores) != count or any(not 0 <= i < count for i in (*shown, *_ends(node))):
            raise ValueError(
                f"nodes.{number}: scores, chosen, rejected or judgements are not of its {count} candidates"
            )
    return trajectory


def _ends(node: StepNode) -> tuple[int, ...]:
    """Best and worst, which a step without candidates has not."""
    return (node.chosen, node.rejected) if node.candidates else ()


@cache
def _reader() -> TypeAdapter[Trajectory]:
    return TypeAdapter(Trajectory)
