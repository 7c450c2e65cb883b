"""`psr`: the entry point. Finds the command, makes its options from its typed arguments, and says what went wrong.

commands.py has the commands that there are, spelling.py how people may write them, lightning.py LightningCLI for single
stages (fit, validate, test, predict). A command that runs stages (run, trial) is handed `execute`, one that only looks
whether they can be run (sweep) `rehearse`.
"""

import os
import shlex
import sys
from argparse import ArgumentError
from collections.abc import Callable
from inspect import signature
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser

from psr.cli.commands import find
from psr.cli.messages import essence, users
from psr.cli.spelling import spelled
from psr.errors import PSRError, UsageError
from psr.processes.orphans import end_with_parent
from psr.processes.stopping import INTERRUPTED, MARK, PREEMPTED, Preempted, leave_mark
from psr.terminal.text import printable


def main(args: list[str] | None = None) -> None:
    """Run one command line; tests call `main([...])`. Exits with 1 and one clear message on bad input."""
    if MARK in os.environ:  # `psr run --launch` started what started this process
        end_with_parent()
    words = sys.argv[1:] if args is None else args
    try:
        execute(words)
    except PSRError as error:
        sys.exit(f"psr: {printable(str(error))}")  # which may quote what a model, a server or a file says
    except Preempted:
        leave_mark()
        print("psr: stopped as told; the same command goes on from here", file=sys.stderr)
        sys.exit(PREEMPTED)
    except KeyboardInterrupt as error:
        said = str(error) or "stopped by Ctrl-C. What was complete by then stays, the rest is lost"
        print(f"psr: {said}. To go on: {shlex.join(['psr', *words])}", file=sys.stderr)
        sys.exit(INTERRUPTED)


def execute(words: list[str]) -> None:
    """Run one command line; how it ends is for the caller to say."""
    run_command(spelled(words))


def rehearse(words: list[str]) -> dict[str, Any]:
    """Parse one command line to its end, and make what it names; nothing is run. The arguments of the command, if it
    has typed ones.
    """
    words = spelled(words)
    command, path, arguments = find(words)
    function = command.function()
    if command.parsed:
        return settings_of(function, path, arguments)
    from psr.cli.lightning import rehearse_stage

    rehearse_stage(words[len(path) - 1 :])
    return {}


HANDED = {"execute": execute, "rehearse": rehearse}
"""What commands that handle command lines are given."""


def run_command(words: list[str]) -> None:
    command, path, arguments = find(words)
    function = command.function()
    handed = {name: given for name, given in HANDED.items() if name in signature(function).parameters}
    if not command.parsed:
        function(words[len(path) - 1 :], **handed)
        return
    function(**settings_of(function, path, arguments), **handed)


def settings_of(function: Callable[..., Any], path: list[str], arguments: list[str]) -> dict[str, Any]:
    """The arguments of a command, as its command line gives them."""
    parser = command_parser(function, path)
    try:
        settings = parser.instantiate(parser.parse_args(arguments))
    except (ArgumentError, ValueError) as error:  # jsonargparse wraps the errors of classes that it makes
        raise users(error) or UsageError(f"{essence(error)} (see `{parser.prog} --help`)") from None
    settings.pop("config", None)
    return {**settings}


def command_parser(function: Callable[..., Any], path: list[str]) -> ArgumentParser:
    """The command line of a function: its typed parameters, and `--config` for a file of them."""
    from psr.engines import local, sglang  # noqa: F401 - engines may be named without their module once these are known

    parser = ArgumentParser(prog=" ".join(["psr", *path]), exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file of these settings; later options count")
    parser.add_function_arguments(function, as_group=False, as_positional=True, sub_configs=True, skip=set(HANDED))
    parser.description = (function.__doc__ or "").partition("\n\n")[0]
    return parser


if __name__ == "__main__":
    main()
