"""Which numbers a setting may be: declared in its annotation, checked where an object is made or a command is called.

    @bounded("search")
    @dataclass(frozen=True)
    class SearchSettings:
        width: Count = 6

So that `search.width` 0 ends in one line before anything is loaded, wherever it was set: on the command line, in a
config or in Python. Knows numbers and annotations; no setting, parser or class of psr.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, wraps
from inspect import signature
from numbers import Integral, Real
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from psr.errors import UsageError

T = TypeVar("T", bound=Callable[..., Any])


def finite(number: float) -> bool:
    """As `math.isfinite`, which fails on a whole number that no float can hold."""
    return isinstance(number, Integral) or math.isfinite(number)


@dataclass(frozen=True)
class Bounds:
    """From `low` to `high`; `above` and `below` leave the ends out. Infinity and NaN are in no bounds."""

    low: float = 0
    high: float = math.inf
    above: bool = False
    below: bool = False

    def hold(self, value: Any) -> bool:
        enough = value > self.low if self.above else value >= self.low
        return finite(value) and enough and (value < self.high if self.below else value <= self.high)

    def __repr__(self) -> str:  # `--help` shows it behind the type
        low = f"{'above' if self.above else 'at least'} {self.low:g}"
        high = f"{'below' if self.below else 'at most'} {_plain(self.high)}"
        return low if math.isinf(self.high) else f"{low} and {high}"


def _plain(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


MANY = 10**9
"""More than there can be of anything that is counted here: what is greater is a slip."""

Count = Annotated[int, Bounds(1, MANY)]
CountOrNone = Annotated[int, Bounds(0, MANY)]
Seed = Annotated[int, Bounds(0, 2**32 - 1)]
Port = Annotated[int, Bounds(0, 2**16 - 1)]
Share = Annotated[float, Bounds(0, 1)]
OpenShare = Annotated[float, Bounds(0, 1, above=True, below=True)]
Nucleus = Annotated[float, Bounds(0, 1, above=True)]
Margin = Annotated[float, Bounds(0, 1, below=True)]
Temperature = Annotated[float, Bounds(0, 100)]
Weight = Annotated[float, Bounds()]
Positive = Annotated[float, Bounds(above=True)]
Seconds = Annotated[float, Bounds(0, 10**7, above=True)]


def bounded(section: str = "") -> Callable[[T], T]:
    """Decorates a function, an `__init__` or a class (a dataclass) whose numbers all have bounds.

    Calling it raises UsageError where one of them is out of bounds or of another type: "search.width is 0: it must be
    at least 1 and at most 1,000,000,000".
    """

    def decorate(target: T) -> T:
        if isinstance(target, type):
            target.__init__ = _checking(target.__init__, section)  # type: ignore[misc]
            return target
        return _checking(target, section)

    return decorate


def _checking(function: T, section: str) -> T:
    names = signature(function)

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = names.bind_partial(*args, **kwargs).arguments
        for name, number in numbers_of(function).items():
            if (value := given.get(name)) is not None:
                number.check(f"{section}.{name}".lstrip("."), value)
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]


@dataclass(frozen=True)
class Number:
    """What an annotation says of a setting: its bounds, whether it is a whole number, and whether it is a list."""

    bounds: Bounds
    whole: bool
    several: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raise UsageError unless the value, or every element of the list, is such a number."""
        if self.several and isinstance(value, Sequence) and not isinstance(value, str):
            for i, one in enumerate(value):
                replace(self, several=False).check(f"{name}[{i}]", one)
        elif self.several or isinstance(value, bool) or not isinstance(value, (Integral,) if self.whole else (Real,)):
            kind = f"{'list of ' * self.several}{'whole ' * self.whole}number{'s' * self.several}"
            raise UsageError(f"{name} is {value!r}: it must be a {kind}, {self.bounds!r}")
        elif not self.bounds.hold(value):
            raise UsageError(f"{name} is {value}: it must be {self.bounds!r}")


@cache
def numbers_of(function: Callable[..., Any]) -> dict[str, Number]:
    """The parameters that are numbers with bounds."""
    found = {name: _number(hint) for name, hint in get_type_hints(function, include_extras=True).items()}
    return {name: number for name, number in found.items() if number is not None}


def _number(hint: Any) -> Number | None:
    """What is said in the annotation of a number, of `number | None` or of `list[number]`."""
    if get_origin(hint) is Annotated:
        kind, *notes = get_args(hint)
        return next((Number(note, kind is int) for note in notes if isinstance(note, Bounds)), None)
    found = next((found for part in get_args(hint) if (found := _number(part)) is not None), None)
    return replace(found, several=True) if found is not None and get_origin(hint) is list else found
