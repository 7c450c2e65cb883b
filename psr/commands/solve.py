"""`psr solve`: watch a model solve one problem by judged step search, in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from psr.engines.base import Engine
from psr.errors import UsageError
from psr.prompts.templates import Prompts
from psr.search.judges import JudgeSettings

if TYPE_CHECKING:
    from psr.commands.solving import Setting


def solve(
    model: Path | None = None,
    problem: str | None = None,
    greedy: bool = False,
    compare: Path | None = None,
    width: int | None = None,
    temperature: float | None = None,
    max_iterations: int | None = None,
    ties: Literal["rollback", "advance"] | None = None,
    seed: int | None = None,
    verdicts: bool = False,
    judge: JudgeSettings | None = None,
    prompts: Prompts | None = None,
    engine: Engine | None = None,
) -> None:
    """Solve one problem by judged step search and show it live: candidates, wins, verdicts, roll-backs, the answer.

    What is not given is as in the run that made the model (RUN/models/M4), or the default where there is no run.

    Args:
        model: Hugging Face folder of the policy.
        problem: the problem's text; without one, problems are asked for line by line until an empty line.
        greedy: also write the solution with the most likely token again and again, without search, beside it.
        compare: folder of another policy that solves the same problem, beside it.
        width: candidates per step.
        temperature: sampling temperature of the candidates.
        max_iterations: expansions of the search, roll-backs included.
        ties: what follows when no candidate beats another: "rollback" takes the step before back, "advance" goes on
            with the first candidate (the default without a run).
        seed: seed of the sampling.
        verdicts: also show what the judge wrote.
        judge: how the policy judges.
        prompts: templates and step format.
        engine: what generates and judges; in this process if not given.
    """
    import asyncio

    from psr.commands.solving import read_setting, session

    if model is None:
        raise UsageError("psr solve needs --model FOLDER, for instance --model runs/quickstart/models/M4")
    given = {"width": width, "temperature": temperature, "max_iterations": max_iterations, "ties": ties, "seed": seed}
    setting: Setting = read_setting(model, {name: value for name, value in given.items() if value is not None})
    asyncio.run(session(problem, [model, *([compare] if compare else [])], greedy, verdicts, setting))
