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
KEY = re.compile(r'Parser key "([^"]*)":')


def essence(error: Exception) -> str:
    """What a jsonargparse message says, on one line."""
    if unknown := NO_CLASS.search(str(error)):
        return no_class(unknown[1], KEY.findall(str(error)[: unknown.start()]))
    lines = (line.strip().removeprefix("- ") for line in str(error).splitlines())
    return " ".join(line for line in lines if line and not line.startswith(NOISE))


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
