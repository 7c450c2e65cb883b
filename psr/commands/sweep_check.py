"""Every trial's settings, checked before the first trial: a misspelt one is found at once, not when all have failed.

A trial is rehearsed in this process: its command line is parsed, and its objects are made, with the values of the trial
and in a folder of its own that is removed again. Knows the commands that trials are made of. A program that is not psr
is not rehearsed.
"""

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from psr.commands.trial import trial
from psr.errors import PSRError, UsageError
from psr.run.folder import RunFolder
from psr.run.rehearsal import rehearse_run
from psr.sweeps.file import Sweep, Value, command_line

OPERATORS = ";|&<>`(\n"
"""What makes a shell's script more than one command."""
Rehearse = Callable[[list[str]], Any]


def check_trials(spec: Sweep, base: Path, rehearse: Rehearse) -> None:
    """Rehearse the trials whose settings stand for those of all: of a grid every point, else the ends and members of
    every parameter.

    Raises:
        UsageError: one of them cannot be run; the message has its settings.
    """
    name = f"{spec.name}-check-{os.getpid()}"
    for values in representatives(spec):
        with _run_id(name), _removed(RunFolder(base).trials / name):
            words = psr_words(command_line(spec.command, values, "python"))
            if words is None:
                return
            try:
                _rehearse(words, rehearse)
            except PSRError as error:
                told = ", ".join(f"{setting}={value}" for setting, value in values.items())
                raise UsageError(f"a trial of {spec.name} with {told} cannot be run: {error}") from error


def representatives(spec: Sweep) -> list[dict[str, Value]]:
    """Points of the search space in which every end and every member occurs."""
    if spec.method == "grid":
        return spec.points()
    edges = {name: _edges(one) for name, one in spec.space.items()}
    count = max(map(len, edges.values()))
    columns = [islice(cycle(values), count) for values in edges.values()]
    return [dict(zip(edges, point, strict=True)) for point in zip(*columns, strict=True)]


def _edges(one: BaseDistribution) -> list[Value]:
    return list(one.choices) if isinstance(one, CategoricalDistribution) else [one.low, one.high]  # type: ignore[attr-defined]


def psr_words(words: list[str]) -> list[str] | None:
    """The command line that psr will be given, or None where the command starts something else."""
    match words:
        case ["/usr/bin/env", *rest]:
            return psr_words(rest)
        case ["python", "-m", "psr.cli.main", *rest]:
            return rest
        case ["sh", "-c", script, _, *rest] if not set(script) & set(OPERATORS):
            parts = [[os.path.expandvars(word)] if word != "$@" else rest for word in shlex.split(script)]
            return psr_words([word for part in parts for word in part])
        case [program, *rest] if Path(program).name == "psr":
            return rest
    return None


def _rehearse(words: list[str], rehearse: Rehearse) -> None:
    match words:
        case ["trial", *_]:
            trial(words, rehearse)
        case ["run", *_]:
            rehearse_run(rehearse, **rehearse(words))
        case _:
            rehearse(words)


@contextlib.contextmanager
def _run_id(name: str) -> Iterator[None]:
    """The environment as a trial of this name finds it."""
    before = os.environ.get("WANDB_RUN_ID")
    os.environ["WANDB_RUN_ID"] = name
    try:
        yield
    finally:
        os.environ.pop("WANDB_RUN_ID")
        if before is not None:
            os.environ["WANDB_RUN_ID"] = before


@contextlib.contextmanager
def _removed(folder: Path) -> Iterator[None]:
    """Whatever is in the folder afterwards is gone; it holds links, which are not followed."""
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # there are trials, or none were to be
            folder.parent.rmdir()
