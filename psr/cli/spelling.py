"""The command line as people write it, turned into what jsonargparse takes. Knows words; runs nothing."""

import json
from argparse import ArgumentParser
from itertools import takewhile

SWITCHES = ("--dry_run", "--greedy", "--verdicts", "--watch")
"""Options that may stand without their value, which is then true."""


def spelled(words: list[str]) -> list[str]:
    """The words as the parser wants them.

    Names of options have underscores; a switch may stand alone; the problem of `solve` may stand first or last;
    `data eft --from SOURCE ...` is the command `data eft SOURCE ...` (every source of judge data has settings of its
    own; the verifier without `--from`); the runs of `report RUN RUN ...` are one list.
    """
    words = [underscored(word) for word in words]
    if words[:1] == ["solve"]:
        for place in (1, len(words) - 1):
            if 0 < place < len(words) and stands_alone(words[place - 1], words[place]):
                words[place] = f"--problem={words[place]}"
    followers = [*words[1:], "--"]
    alone = [one in SWITCHES and next_.startswith("--") for one, next_ in zip(words, followers, strict=False)]
    words = [one + "=true" if switch else one for one, switch in zip(words, alone, strict=True)]
    if words[:2] == ["data", "eft"]:
        parser = ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--from", dest="source", default="verifier")
        found, rest = parser.parse_known_args(words[2:])
        return [*words[:2], found.source, *rest]
    if words[:1] == ["report"]:
        runs = list(takewhile(lambda word: not word.startswith("-"), words[1:]))
        return ["report", *([json.dumps(runs)] if runs else []), *words[1 + len(runs) :]]
    return words


def stands_alone(before: str, word: str) -> bool:
    """Whether `word` is neither an option nor the value of the one before."""
    takes_value = before.startswith("--") and "=" not in before and before not in SWITCHES
    return not word.startswith("-") and not takes_value and word not in ("true", "false")


def underscored(word: str) -> str:
    """`--run-dir` may be written for `--run_dir`: option names take dashes, values stay as they are."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return "--" + name.replace("-", "_") + equals + value
