"""A sweep file in W&B's format, read as a search space of Optuna. Knows the format; runs nothing.

https://docs.wandb.ai/guides/sweeps/sweep-config-keys: `method`, `metric`, `parameters`, `command`, `early_terminate`,
`run_cap`. Anything else that has no counterpart here is refused by name.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from psr.errors import UsageError

Value = bool | int | float | str | None
METRICS = "eval/"
"""The prefix of a model's metrics in W&B."""


@dataclass(frozen=True)
class Sweep:
    """The search space, how trials are started, and which metric decides.

    `metric` is a field of the models in `results.json`; `command` still has W&B's macros, such as ${args}.
    """

    name: str
    method: str
    metric: str
    maximize: bool
    space: dict[str, BaseDistribution]
    command: list[str]
    prunes: bool
    run_cap: int | None

    def sampler(self, seed: int, trials: int) -> optuna.samplers.BaseSampler:
        """The sampler of a trial's settings. Every trial needs its own seed, or two could get the same settings."""
        if self.method == "random":
            return optuna.samplers.RandomSampler(seed)
        at_random = min(10, trials // 2)  # with Optuna's default of 10, a short sweep would only sample at random
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=at_random)

    def trials(self, asked: int | None) -> int | None:
        """How many trials to run if `asked` are asked for; None if nothing says. A grid ends with its points."""
        wanted = asked or self.run_cap
        if self.method == "grid":
            return min(wanted or len(self.points()), len(self.points()))
        return wanted

    def points(self) -> list[dict[str, Value]]:
        """All combinations of a grid, in W&B's order: the last parameter changes first."""
        choices = [one.choices for one in self.space.values() if isinstance(one, CategoricalDistribution)]
        return [dict(zip(self.space, point, strict=True)) for point in product(*choices)]

    def pruner(self) -> optuna.pruners.BasePruner:
        return optuna.pruners.MedianPruner(n_startup_trials=3) if self.prunes else optuna.pruners.NopPruner()


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file. Raises UsageError on a field that is missing or not supported."""
    if not path.is_file():
        raise UsageError(f"no sweep file {path}")
    document = yaml.safe_load(path.read_text())
    for field in ("method", "metric", "parameters", "command"):
        if field not in (document or {}):
            raise UsageError(f"{path}: field {field!r} is missing")
    method, metric = document["method"], document["metric"]["name"]
    if not metric.startswith(METRICS):
        raise UsageError(f"{path}: metric.name is {metric!r}; it is {METRICS}NAME, NAME a field of results.json")
    if method not in ("grid", "random", "bayes"):
        raise UsageError(f"{path}: method is {method!r}; it is grid, random or bayes")
    space = {name: distribution(path, name, spec) for name, spec in document["parameters"].items()}
    if method == "grid" and not all(isinstance(one, CategoricalDistribution) for one in space.values()):
        raise UsageError(f"{path}: method grid needs `values` for every parameter")
    return Sweep(
        name=document.get("name", path.stem),
        method=method,
        metric=metric.removeprefix(METRICS),
        maximize=document["metric"].get("goal", "minimize") == "maximize",
        space=space,
        command=document["command"],
        prunes="early_terminate" in document,
        run_cap=document.get("run_cap"),
    )


def distribution(path: Path, name: str, spec: dict[str, Any]) -> BaseDistribution:
    """The Optuna distribution of a parameter."""
    unknown = spec.keys() - {"value", "values", "min", "max", "distribution", "q"}
    if unknown:
        raise UsageError(f"{path}: parameter {name} has {', '.join(sorted(unknown))}, which is not known here")
    if "value" in spec:
        return CategoricalDistribution([spec["value"]])
    if "values" in spec:
        return CategoricalDistribution(spec["values"])
    if not {"min", "max"} <= spec.keys():
        raise UsageError(f"{path}: parameter {name} has neither value, values, nor min and max")
    low, high = spec["min"], spec["max"]
    whole = isinstance(low, int) and isinstance(high, int)
    kind = spec.get("distribution", "int_uniform" if whole else "uniform")
    match kind:
        case "int_uniform":
            return IntDistribution(low, high)
        case "uniform":
            return FloatDistribution(low, high)
        case "log_uniform_values":
            return FloatDistribution(low, high, log=True)
        case "q_uniform":
            return FloatDistribution(low, high, step=spec.get("q", 1))
    raise UsageError(
        f"{path}: parameter {name} has the distribution {kind!r}, which is not known here; known are uniform, "
        "int_uniform, log_uniform_values and q_uniform"
    )


def command_line(command: list[str], values: dict[str, Value], python: str) -> list[str]:
    """The command with W&B's macros filled in."""
    words: list[str] = []
    for word in command:
        match word:
            case "${env}":
                words.append("/usr/bin/env")
            case "${interpreter}":
                words.append(python)
            case "${args}":
                words += [f"--{name}={value}" for name, value in values.items()]
            case "${args_no_hyphens}":
                words += [f"{name}={value}" for name, value in values.items()]
            case _ if word.startswith("${"):
                raise UsageError(f"command: the macro {word} is not known here")
            case _:
                words.append(word)
    return words
