"""A sweep file in W&B's format, read as a search space of Optuna. Knows the format; runs nothing.

https://docs.wandb.ai/guides/sweeps/sweep-config-keys: `method`, `metric`, `parameters`, `command`, `early_terminate`,
`run_cap`. Anything else that has no counterpart here is refused by name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import optuna
from annotated_types import Ge
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from typing_extensions import TypedDict

from psr.bounds import finite
from psr.errors import UsageError
from psr.files.documents import read_document
from psr.files.kinds import Text
from psr.files.rows import checked
from psr.terminal.text import brief

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


class Metric(TypedDict):
    name: Text
    goal: NotRequired[Literal["maximize", "minimize"]]


class SweepFile(TypedDict):
    """What is read of W&B's sweep files."""

    name: NotRequired[Text]
    method: Literal["grid", "random", "bayes"]
    metric: Metric
    parameters: dict[str, dict[str, Any]]
    command: list[str]
    early_terminate: NotRequired[dict[str, Any]]
    run_cap: NotRequired[Annotated[int, Ge(1)]]


SCALARS = (str, int, float, bool, type(None))


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file. Raises DataError or UsageError on a field that is missing, wrong or not supported."""
    document = checked(str(path), read_document(path), SweepFile)
    metric = document["metric"]["name"]
    if not metric.startswith(METRICS):
        raise UsageError(f"{path}: metric.name is {brief(metric)}; it is {METRICS}NAME, NAME a field of results.json")
    name = document.get("name", path.stem)
    if Path(name).name != name:
        raise UsageError(f"{path}: name is {brief(name)}; it names files, and must hold no /")
    space = {name: distribution(path, name, spec) for name, spec in flat(path, document["parameters"])}
    if not space:
        raise UsageError(f"{path}: there are no parameters")
    if document["method"] == "grid" and not all(isinstance(one, CategoricalDistribution) for one in space.values()):
        raise UsageError(f"{path}: method grid needs `values` for every parameter")
    return Sweep(
        name=name,
        method=document["method"],
        metric=metric.removeprefix(METRICS),
        maximize=document["metric"].get("goal", "minimize") == "maximize",
        space=space,
        command=document["command"],
        prunes="early_terminate" in document,
        run_cap=document.get("run_cap"),
    )


def flat(path: Path, parameters: dict[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The parameters, those nested in W&B's way under their dotted names."""
    for name, spec in parameters.items():
        if not isinstance(spec, dict):
            raise UsageError(f"{path}: parameter {above}{name} is {brief(spec)}; write {{value: {brief(spec)}}}")
        if spec.keys() == {"parameters"} and isinstance(spec["parameters"], dict):
            yield from flat(path, spec["parameters"], f"{above}{name}.")
        else:
            yield f"{above}{name}", spec


def distribution(path: Path, name: str, spec: dict[str, Any]) -> BaseDistribution:
    """The Optuna distribution of a parameter."""
    unknown = spec.keys() - {"value", "values", "min", "max", "distribution", "q"}
    if unknown:
        named = ", ".join(sorted(brief(one) for one in unknown))
        raise UsageError(f"{path}: parameter {name} has {named}, which is not known here")
    if "value" in spec or "values" in spec:
        values = [spec["value"]] if "value" in spec else spec["values"]
        if not isinstance(values, list) or not values or not all(isinstance(one, SCALARS) for one in values):
            raise UsageError(f"{path}: parameter {name} has the values {brief(values)}; they are a list of scalars")
        return CategoricalDistribution(values)
    if not {"min", "max"} <= spec.keys():
        raise UsageError(f"{path}: parameter {name} has neither value, values, nor min and max")
    low, high, step = spec["min"], spec["max"], spec.get("q", 1)
    if not all(type(one) in (int, float) and finite(one) for one in (low, high, step)):
        raise UsageError(
            f"{path}: parameter {name} goes from {brief(low)} to {brief(high)}; min, max and q are numbers"
        )
    whole = isinstance(low, int) and isinstance(high, int)
    kind = spec.get("distribution", "int_uniform" if whole else "uniform")
    try:
        match kind:
            case "int_uniform" if whole:
                return IntDistribution(low, high)
            case "uniform":
                return FloatDistribution(low, high)
            case "log_uniform_values":
                return FloatDistribution(low, high, log=True)
            case "q_uniform":
                return FloatDistribution(low, high, step=step)
    except (ValueError, OverflowError) as error:  # Optuna's: from a greater number to a smaller one, a logarithm of 0
        raise UsageError(f"{path}: parameter {name}: {' '.join(str(error).split())[:200]}") from None
    raise UsageError(
        f"{path}: parameter {name} has the distribution {brief(kind)}, which is not known here, or no whole numbers; "
        "known are uniform, int_uniform, log_uniform_values and q_uniform"
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
