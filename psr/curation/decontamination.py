"""Finds problems that are also in a benchmark, by their normalized text. Knows texts only."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SPACING = re.compile(r"\\(?:[,;:!]|q?quad(?![a-z])|left(?![a-z])|right(?![a-z])|displaystyle(?![a-z]))")
WRAPPER = re.compile(r"\\(?:text|mathrm|mathbf|textbf|textit)(?![a-z])")
FRACTION = re.compile(r"\\[dt]frac(?![a-z])")
KEPT = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]|[-+*/=<>^%]")


def normalized(problem: str) -> str:
    r"""The normalized text by which copies of a problem are found: letters, numbers and operators.

    Case, white space, punctuation, dollar signs, braces and LaTeX's spacing and fonts are ignored:
    "What is $\dfrac{1}{2}$?" and "what is \frac12 ?" are the same problem.
    """
    text = unicodedata.normalize("NFKC", problem).casefold()
    text = text.replace("−", "-").replace("×", "*").replace("·", "*")
    text = FRACTION.sub(r"\\frac", WRAPPER.sub("", SPACING.sub("", text)))
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    return "".join(KEPT.findall(text))


@dataclass(frozen=True)
class Benchmarks:
    """The normalized problems of benchmarks, and which benchmark each is from."""

    names: Mapping[str, str]

    @classmethod
    def of(cls, problems: Mapping[str, Iterable[str]]) -> "Benchmarks":
        """`problems` holds the problems of every benchmark by its name."""
        return cls({normalized(text): name for name, texts in problems.items() for text in texts})

    def holding(self, problem: str) -> str | None:
        """The name of a benchmark that has this problem, or None."""
        return self.names.get(normalized(problem))


def without_benchmarks(
    rows: Iterable[Mapping[str, Any]], benchmarks: Benchmarks, dropped: Counter[str]
) -> Iterator[dict[str, Any]]:
    """The rows whose problem is in no benchmark, one at a time; `dropped` counts the others by benchmark."""
    for row in rows:
        name = benchmarks.holding(row["problem"])
        if name is None:
            yield dict(row)
        else:
            dropped[name] += 1
