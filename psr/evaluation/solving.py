"""How well a policy solves: greedy answers and self-judged search on problems with reference answers.

Knows engines and grading. Reference answers are used here only, once the solutions are written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from psr.engines.base import Engine, Origin, Sampling
from psr.evaluation.rules import grade
from psr.prompts.encoder import Encoder
from psr.records import GoldProblem, Trajectory
from psr.search.judges import Judge
from psr.search.run import for_each
from psr.search.step_search import SearchSettings, step_search


@dataclass(frozen=True)
class Solved:
    """A graded solution; `correct` is None where the problem has no reference answer.

    `steps` is the number of steps, `tokens` its length, EOS included.
    """

    problem: GoldProblem
    text: str
    correct: bool | None
    finished: bool
    steps: int
    tokens: int


async def solve_greedy(
    engine: Engine, encoder: Encoder, problems: Sequence[GoldProblem], max_tokens: int, title: str = "greedy"
) -> list[Solved]:
    """Greedy solutions, graded, in the order of the problems."""
    sampling = Sampling(max_new_tokens=max_tokens)

    async def one(problem: GoldProblem) -> tuple[str, bool, int]:
        prompts = [encoder.reason(problem.problem)]
        [[completion]] = await engine.generate(prompts, sampling, Origin(problem.id, "solutions"))
        return completion.text, completion.finish_reason == "eos", len(completion.token_ids)

    written = await for_each(problems, one, title)
    correct = grade(problems, [text for text, _, _ in written])
    return [
        Solved(problem, text, right, finished, count_steps(text, encoder), tokens)
        for problem, (text, finished, tokens), right in zip(problems, written, correct, strict=True)
    ]


async def solve_by_search(
    engine: Engine,
    encoder: Encoder,
    problems: Sequence[GoldProblem],
    judge: Judge,
    settings: SearchSettings,
    title: str = "search",
) -> tuple[list[bool | None], list[Trajectory]]:
    """Self-judged step search, the best candidate kept at every step (test-time scaling): graded, with the traces."""
    settings = replace(settings, ties="advance")  # rolling back on ties is for pairs; here a solution is wanted
    trajectories = await for_each(
        [problem.without_answer() for problem in problems],
        lambda problem: step_search(problem, engine, judge, encoder, settings),
        title,
    )
    return grade(problems, [t.solution if t.finished else "" for t in trajectories]), trajectories


def count_steps(text: str, encoder: Encoder) -> int:
    """The number of steps in a whole solution, by the step format."""
    return text.strip().count(encoder.prompts.step_stop) + 1
