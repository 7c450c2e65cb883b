"""Text that somebody else wrote, made safe for a terminal. Knows characters only."""

import unicodedata
from collections.abc import Iterable

ACTING = ("Cc", "Cf", "Cs")
"""Categories of characters that a terminal obeys, or that change how their neighbours are shown: control characters,
format characters (those that turn the direction of text among them), surrogates."""


def printable(text: str) -> str:
    """The text with line breaks as they are, tabs as spaces, and every other acting character spelled out.

    A model may write escape sequences that set the window's title, hide text or ask the terminal to type an answer.
    """
    return "".join(one if one == "\n" or unicodedata.category(one) not in ACTING else spelled(one) for one in text)


def brief(value: object, most: int = 60) -> str:
    """What a message shows of a value that may be anything: as Python writes it, and of what is long the beginning."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def some_names(names: Iterable[object], most: int = 200) -> str:
    """Names in a row for a message, of many or long ones the beginning; "none" if there is none."""
    text = printable(", ".join(map(str, names)))
    return f"{text[:most]}{'...' * (len(text) > most)}" or "none"


def spelled(one: str) -> str:
    return "    " if one == "\t" else f"\\x{ord(one):02x}" if ord(one) < 256 else f"\\u{ord(one):04x}"
