"""Every number that can be set has bounds; one out of them ends in a line that names setting, value and range.

The settings are found by looking: of every command, of every class that a config may name, and of the dataclasses that
these take. A new one without bounds fails here.
"""

import dataclasses
import inspect
import math
import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest

from psr.bounds import Count, Margin, Nucleus, Number, bounded, numbers_of
from psr.cli.classes import KINDS, _subclasses
from psr.cli.commands import leaves
from psr.engines.base import Sampling
from psr.engines.sglang.server import Launch
from psr.errors import UsageError
from psr.modules.training import RowModule
from psr.planning import Guess

Target = Callable[..., Any]
WRONG = [0, -1, 10**40, 10**400, math.nan, math.inf, -math.inf, "3", True, [None]]


def ours() -> Iterator[Target]:
    """Commands, and classes that configs may name."""
    yield from (command.function() for command in leaves().values() if command.parsed)
    for kind in KINDS.values():
        for one in _subclasses(kind):
            if (
                one.__module__.startswith(("psr.", "callbacks."))
                and not inspect.isabstract(one)
                and one is not RowModule
            ):
                yield one
    yield from (Guess, Sampling)


def hints(target: Target) -> dict[str, Any]:
    function = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    return {name: hint for name, hint in get_type_hints(function, include_extras=True).items() if name != "return"}


def parts(hint: Any) -> Iterator[Any]:
    """The alternatives and elements of an annotation; an annotated number is one."""
    if get_origin(hint) in (Union, types.UnionType, list, tuple):
        for part in get_args(hint):
            yield from parts(part)
    else:
        yield hint


def reached(targets: Iterator[Target]) -> dict[str, Target]:
    """The targets and all dataclasses that they take, by name."""
    found: dict[str, Target] = {}
    waiting = list(targets)
    while waiting:
        one = waiting.pop()
        if (name := f"{one.__module__}.{one.__qualname__}") not in found:
            found[name] = one
            named = (part for hint in hints(one).values() for part in parts(hint))
            waiting += [part for part in named if dataclasses.is_dataclass(part) and isinstance(part, type)]
    return found


TARGETS = reached(ours())
SETTINGS = [(target, name) for target in TARGETS for name, hint in hints(TARGETS[target]).items()]
NUMBERS = [
    (target, name)
    for target, name in SETTINGS
    if any(part in (int, float) or get_origin(part) is Annotated for part in parts(hints(TARGETS[target])[name]))
]


def test_the_look_finds_what_there_is():
    names = {target.rpartition(".")[2] for target in TARGETS}
    assert {"SFTDataModule", "LocalEngine", "SearchSettings", "JudgeSettings", "Launch", "search", "LoRA"} <= names
    assert len(NUMBERS) > 150


def numbers(target: Target) -> dict[str, Number]:
    return numbers_of(inspect.unwrap(target.__init__ if isinstance(target, type) else target))  # type: ignore[misc]


@pytest.mark.parametrize(("name", "setting"), NUMBERS)
def test_a_number_out_of_its_bounds_ends_in_a_line(name: str, setting: str):
    target = TARGETS[name]
    known = numbers(target)
    assert setting in known, f"{name}: {setting} has no bounds: annotate it with a type of psr.bounds"
    number, bounds = known[setting], known[setting].bounds
    kinds = int if number.whole else (int, float)
    refused = [v for v in WRONG if isinstance(v, bool) or not isinstance(v, kinds) or not bounds.hold(v)]
    assert {repr(v) for v in refused} >= {"-1", "nan", "inf", "'3'", "True"}
    for value in refused:
        others = {
            other: [1] if known[other].several else 1 for other in known if other != setting and required(target, other)
        }
        with pytest.raises(UsageError) as caught:
            arguments = {**dummies(target), **others, setting: [value] if number.several else value}
            target(**arguments)
        section, _, said = str(caught.value).partition(f"{setting}{'[0]' * number.several} is ")
        assert section == "" or section.endswith("."), caught.value
        assert said.startswith((f"{value}: it must be", f"{value!r}: it must be")) and repr(bounds) in said
        assert "\n" not in str(caught.value)


def required(target: Target, name: str) -> bool:
    return inspect.signature(target).parameters[name].default is inspect.Parameter.empty


def dummies(target: Target) -> dict[str, Any]:
    """Something for every argument that has to be given: a number that is wrong is found before they are looked at."""
    return {name: object() for name in inspect.signature(target).parameters if required(target, name)}


def test_ends_may_be_left_out_and_values_within_are_taken():
    @bounded("part")
    def made(width: Count = 1, share: Nucleus | None = None, margins: list[Margin] | None = None) -> tuple[Any, ...]:
        return width, share, margins

    assert made() == (1, None, None) and made(10**9, 1.0, [0, 0.5]) == (10**9, 1.0, [0, 0.5])
    with pytest.raises(UsageError, match=r"^part\.share is 0: it must be above 0 and at most 1$"):
        made(share=0)
    with pytest.raises(UsageError, match=r"^part\.margins\[1\] is 1: it must be at least 0 and below 1$"):
        made(margins=[0.5, 1])
    with pytest.raises(UsageError, match=r"^part\.width is 1\.0: it must be a whole number, at least 1 and at most"):
        made(1.0)  # type: ignore[arg-type]
    assert Launch().tp == 1
