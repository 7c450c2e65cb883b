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
NO_CLASS = re.compile(r'(?:Parser key "[^"]*":\s*)?Expected a path but (\S+) either not accessible or invalid')
KEY = re.compile(r'Parser key "([^"]*)":')


def essence(error: Exception) -> str:
    """What a jsonargparse message says, on one line."""
    lines = (line.strip().removeprefix("- ") for line in str(error).splitlines())
    text = " ".join(line for line in lines if line and not line.startswith(NOISE))
    unknown = NO_CLASS.search(text)
    return no_class(text, unknown) if unknown else text


def no_class(text: str, unknown: re.Match[str]) -> str:
    """The message about a class that does not exist, with those that do."""
    name, keys = unknown[1], KEY.findall(text)
    setting = ".".join(keys)
    known = classes_of(keys[-1].rpartition(".")[2])
    if "." in name or "/" in name or not known:
        return f"{setting} is {name!r}, which is neither a class nor a file"
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{setting} is {name!r}, and there is no such class: {hint}known are {', '.join(known)}"


def classes_of(setting: str) -> list[str]:
    """The names of the classes that a setting takes; empty where it takes none, or any."""
    from psr.cli.classes import KINDS, names_of

    return names_of(KINDS[setting]) if setting in KINDS else []


def users(error: BaseException | None) -> PSRError | None:
    """The error of ours that led to `error`, if one did: jsonargparse wraps those of the classes that it makes."""
    while error is not None:
        if isinstance(error, PSRError):
            return error
        error = error.__cause__
    return None
