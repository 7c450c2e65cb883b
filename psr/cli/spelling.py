"""The command line as people write it, turned into what jsonargparse takes. Knows words; runs nothing."""

import json
from argparse import ArgumentParser
from itertools import takewhile


def spelled(words: list[str]) -> list[str]:
    """The words as the parser wants them.

    Names of options have underscores; the switch `--dry-run` may stand alone; `data eft --from SOURCE ...` is the
    command `data eft SOURCE ...` (every source of judge data has settings of its own; the verifier without `--from`);
    the runs of `report RUN RUN ...` are one list.
    """
    words = [underscored(word) for word in words]
    followers = [*words[1:], "--"]
    alone = [one == "--dry_run" and next_.startswith("--") for one, next_ in zip(words, followers, strict=False)]
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


def underscored(word: str) -> str:
    """`--run-dir` may be written for `--run_dir`: option names take dashes, values stay as they are."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return "--" + name.replace("-", "_") + equals + value
