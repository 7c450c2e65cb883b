"""`psr solve`: watch a model solve a problem by judged step search, in the terminal."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.live import Live

from psr.bounds import Count, Seed, Temperature, bounded
from psr.commands.solve_output import Attempt, SideBySide
from psr.engines.base import Engine, PromptTooLong
from psr.engines.local import LocalEngine
from psr.engines.meter import Meter
from psr.errors import UsageError
from psr.policy.tokenizer import check_folder, load_tokenizer
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.records import Problem
from psr.run.settings import CONFIG, read_run_settings
from psr.search.judges import JudgeSettings, build_judge
from psr.search.step_search import SearchSettings, step_search
from psr.search.strategies import Means, StrategySettings
from psr.search.strategies import greedy as solve_greedily
from psr.search.watched import WatchedJudge
from psr.terminal.progress import duration

Ties = Literal["rollback", "advance"]


@dataclass(frozen=True)
class Setting:
    """How problems are solved."""

    engine: Engine
    prompts: Prompts
    search: SearchSettings
    judge: JudgeSettings
    max_tokens: int
    show_replies: bool


@bounded()
def solve(
    model: Path | None = None,
    problem: str | None = None,
    greedy: bool = False,
    compare: Path | None = None,
    width: Count | None = None,
    temperature: Temperature | None = None,
    max_iterations: Count | None = None,
    ties: Ties | None = None,
    seed: Seed | None = None,
    verdicts: bool = False,
    judge: JudgeSettings | None = None,
    prompts: Prompts | None = None,
    engine: Engine | None = None,
) -> None:
    """Solve a problem by judged step search and show it as it goes: candidates, wins, verdicts, roll-backs, the answer.

    What is not given is as in the run that made the model (RUN/models/M4), and the default where there is no run.

    Args:
        model: Hugging Face folder of the policy.
        problem: the problem's text; without one you are asked for problems, until an empty line.
        greedy: beside the search, also take the most likely token again and again.
        compare: folder of another policy that solves the same problem, beside the first.
        width: candidates per step.
        temperature: sampling temperature of the candidates.
        max_iterations: expansions of a search, roll-backs included.
        ties: what follows when no candidate beats another: "rollback" takes the step before back, "advance" goes on
            with the first candidate.
        seed: seed of the sampling.
        verdicts: also show what the judge wrote.
        judge: how the policy judges.
        prompts: templates and step format.
        engine: what generates and judges; in this process if not given.
    """
    if model is None:
        raise UsageError("psr solve needs --model FOLDER, for instance --model runs/quickstart/models/M4")
    models = [check_folder(folder) for folder in (model, compare) if folder is not None]
    fields = {"width": width, "temperature": temperature, "max_iterations": max_iterations, "ties": ties, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    found = setting_of(model, engine or LocalEngine(), verdicts)
    # The debug judges of a run know what nobody knows of a problem that was just typed.
    asked = replace(judge or found.judge, kind="self")
    setting = replace(found, prompts=prompts or found.prompts, search=replace(found.search, **given), judge=asked)
    console = Console()
    problems = [problem] if problem is not None else problems_asked_for(console)
    asyncio.run(solve_all(problems, models, greedy, setting, console))


def setting_of(model: Path, engine: Engine, show_replies: bool) -> Setting:
    """The settings of the run that a model lies in; of a model of no run, the defaults, for solving."""
    run = model.resolve().parent.parent
    if not (run / CONFIG).is_file():
        search = SearchSettings(ties="advance")
        return Setting(engine, Prompts(), search, JudgeSettings(), StrategySettings().max_tokens, show_replies)
    found = read_run_settings(run, engine)
    return Setting(engine, found.prompts, found.search, found.judge, found.max_tokens, show_replies)


def problems_asked_for(console: Console) -> Iterator[str]:
    """Problems as they are typed, until an empty line or the end of the input."""
    with suppress(ImportError):  # where Python has it: arrow keys and a history for `input`
        import readline  # noqa: F401
    with suppress(EOFError, KeyboardInterrupt):
        while line := console.input("[bold]problem>[/bold] ").strip():
            yield line


async def solve_all(
    problems: Iterator[str] | list[str], models: list[Path], greedy: bool, setting: Setting, console: Console
) -> None:
    """Every problem by every model. The engine serves one model after the other: it may be one server."""
    try:
        for text in problems:
            await solve_one(text, models, greedy, setting, console)
    finally:
        await setting.engine.close()


async def solve_one(text: str, models: list[Path], greedy: bool, setting: Setting, console: Console) -> None:
    """Show all attempts live while they go on; at the end they stay on the screen, whole."""
    names = names_of(models)
    plans: list[tuple[Path, Attempt, Callable[..., Awaitable[None]]]] = []
    for folder in models:
        plans.append((folder, Attempt(f"{names[folder]}, step search", show_replies=setting.show_replies), search))
        if greedy:
            plans.append((folder, Attempt(f"{names[folder]}, greedy"), write_greedily))
    attempts = [attempt for _, attempt, _ in plans]
    with Live(SideBySide(attempts, tail=True), console=console, transient=True, auto_refresh=False) as live:
        for folder, attempt, way in plans:
            attempt.status = "loading"
            live.refresh()
            version = str(folder.resolve())
            if setting.engine.served_version != version:
                await setting.engine.load_weights(folder, version)
            meter, started = Meter(setting.engine), time.monotonic()
            encoder = Encoder(load_tokenizer(folder), setting.prompts)
            try:
                await way(Problem("asked", text), attempt, meter, encoder, setting, live.refresh)
            except PromptTooLong as error:
                attempt.solution, attempt.cost = "", str(error)
            else:
                spent = f"{meter.generated_tokens:,} tokens in {duration(time.monotonic() - started)}"
                attempt.cost = ", ".join([*attempt.counts(), spent])
            attempt.status = ""
            live.refresh()
    console.print(SideBySide(attempts))


def names_of(models: list[Path]) -> dict[Path, str]:
    """What tells the models apart: the last parts of their paths, as few as needed."""
    resolved = {folder: folder.resolve().parts for folder in models}
    for length in range(1, max(map(len, resolved.values())) + 1):
        names = {folder: "/".join(parts[-length:]) for folder, parts in resolved.items()}
        if len(set(names.values())) == len(models):
            break
    return names


async def search(
    problem: Problem, attempt: Attempt, engine: Engine, encoder: Encoder, setting: Setting, show: Callable[[], Any]
) -> None:
    """Step search, with its judge watched."""

    def changed() -> None:
        attempt.nodes, attempt.waiting = watched.nodes, watched.waiting
        attempt.status = "judging" if attempt.waiting else "sampling candidates"
        show()

    watched = WatchedJudge(build_judge(setting.judge, engine, encoder, None), setting.search, changed)
    changed()
    trajectory = await step_search(problem, engine, watched, encoder, setting.search)
    attempt.nodes, attempt.waiting = trajectory.nodes, ()
    attempt.solution, attempt.finished = trajectory.solution, trajectory.finished


async def write_greedily(
    problem: Problem, attempt: Attempt, engine: Engine, encoder: Encoder, setting: Setting, show: Callable[[], Any]
) -> None:
    """One solution, the most likely token at every place."""
    attempt.status = "writing"
    show()
    means = Means(engine, encoder, setting.judge, StrategySettings(max_tokens=setting.max_tokens))
    solution = await solve_greedily(problem, means)
    attempt.solution, attempt.finished = solution.text, solution.finished
