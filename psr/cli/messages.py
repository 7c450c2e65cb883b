"""What the argument parser says, as one line that a person can act on.

Knows how jsonargparse words its errors. Does not know any command.
"""

import re
from difflib import get_close_matches

from psr.errors import PSRError

NOISE = (
    "Does not validate against",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Expected a dot import path string",
    "Given value type:",
    "Given value:",
)
"""How the lines of a jsonargparse message begin that only say which types were tried."""
NO_CLASS = re.compile(r"Expected a dot import path string: (\w+)$", re.MULTILINE)
EXPECTED = re.compile(r"Expected a (?P<kind>.*?)(?:\. Got value: (?P<value>.*))?$", re.DOTALL)
WAY = ("Parser key ", "Problem with given class_path ")
"""How the lines begin that lead to the setting which is wrong."""
SPOKEN = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "a text",
    "<class 'list'>": "a list, as in [1, 2]",
}
KEY = re.compile(r'Parser key "([^"]*)":')


def essence(error: Exception) -> str:
    """What a jsonargparse message says, on one line."""
    if unknown := NO_CLASS.search(str(error)):
        return no_class(unknown[1], KEY.findall(str(error)[: unknown.start()]))
    lines = [line.strip().removeprefix("- ") for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(NOISE)]
    faults = [line for line in said if not line.startswith(WAY)]
    if len(faults) == 1 and (expected := EXPECTED.match(faults[0])):
        return wrong_type(".".join(KEY.findall(str(error))), expected, lines[lines.index(faults[0]) :])
    return " ".join(said)


def wrong_type(setting: str, expected: re.Match[str], rest: list[str]) -> str:
    """The message about a value of another type; after it, in `rest`, stands the value of the innermost setting."""
    given = (line.removeprefix("Given value: ") for line in rest if line.startswith("Given value: "))
    value = expected["value"] if expected["value"] is not None else next(given, "of another type")
    kind = expected["kind"]
    choice = re.fullmatch(r"typing\.Literal\[(.*)\]", kind)
    return f"{setting} is {value}: it must be {f'one of {choice[1]}' if choice else SPOKEN.get(kind, kind)}"


def no_class(name: str, keys: list[str]) -> str:
    """The message about a class that does not exist, with those that do; `keys` lead to the setting."""
    from psr.cli.classes import KINDS, names_of

    setting = ".".join(keys)
    message = f"{setting} is {name!r}, and there is no such class"
    kind = KINDS.get(setting.rpartition(".")[2])
    if kind is None:
        return f"{message}: give its full name, as in package.module.{name}"
    known = names_of(kind)
    near = get_close_matches(name, known, n=1)
    return f"{message}: {f'did you mean {near[0]}? ' if near else ''}known are {', '.join(known)}"


def users(error: BaseException | None) -> PSRError | None:
    """The error of ours that led to `error`, if one did: jsonargparse wraps those of the classes that it makes."""
    while error is not None:
        if isinstance(error, PSRError):
            return error
        error = error.__cause__
    return None
