"""API keys: read from the environment by the names that settings give, and kept out of what is said and written.

A key itself is never a setting, so that no config, log or journal can hold one. Knows neither servers nor HTTP.
"""

import os

from psr.errors import UsageError

HIDDEN = "[the key]"


def secret(setting: str, variable: str | None) -> str | None:
    """The key in an environment variable, which a setting names; None where it names none.

    Raises:
        UsageError: the variable is not set, or what it holds cannot be a key. The message does not hold it.
    """
    if variable is None:
        return None
    # `export KEY=$(< file)` and its like leave white space around; a header cannot hold any, nor what is no ASCII.
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(f"{setting} is {variable!r}: set that environment variable to the key")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UsageError(
            f"{setting} is {variable!r}: what is in that environment variable is no key, but several words"
        )
    return key


def hidden(text: str, authorization: str | None) -> str:
    """What a server said, without the key of the header `Authorization`: some quote the key that they refuse."""
    key = (authorization or "").removeprefix("Bearer ").strip()
    return text.replace(key, HIDDEN) if key else text
