"""`psr`: LightningCLI for single stages (fit, validate, test, predict), and the commands around it.

    psr fit --config ...       one stage, plain LightningCLI
    psr run RECIPE_FOLDER      all stages of a recipe, resumable
    psr data / psr model       make what the stages read
    psr search                 solve problems by test-time search
    psr evaluate               models on benchmarks: accuracy, intervals
    psr analyse                the paper's tables and figures, of one's own run
    psr report RUN [RUN ...]   figures, tables and searches of finished runs, as a page
    psr plan --config ...      memory, requests and tokens of a stage, before any GPU is asked for
    psr sweep FILE             trials of a W&B sweep file on this machine
    psr serve                  a server for several runs, or an annotator

Every command is a function with typed arguments; jsonargparse makes the command line, the help and the checks.
"""

import sys
from argparse import ArgumentError
from typing import Any

from jsonargparse import CLI
from lightning.pytorch.utilities.exceptions import SIGTERMException

from psr.cli.spelling import spelled
from psr.errors import PSRError, UsageError
from psr.processes.stopping import PREEMPTED, leave_mark

LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")
DESCRIPTION = (
    "Process-based self-rewarding language models. One stage, plain LightningCLI: psr fit|validate|test|predict "
    "--config FILE. Whole recipes, and the data and models that they start from: the commands below."
)


def lightning_cli(args: list[str]) -> None:
    """Run one LightningCLI subcommand."""
    from psr.cli.lightning import PSRLightningCLI, essence

    try:
        PSRLightningCLI(args=args)
    except ArgumentError as error:
        raise UsageError(f"{essence(error)} (see `psr {args[0]} --help`)") from error


def plan_cli(args: list[str]) -> None:
    """Print what a stage needs; the arguments are those of `psr fit`, and `--plan.*`."""
    from psr.cli.lightning import essence
    from psr.commands.plan import plan

    try:
        plan(args)
    except ArgumentError as error:
        raise UsageError(f"{essence(error)} (see `psr plan --help`)") from error


def commands() -> dict[str, Any]:
    """The commands besides LightningCLI's, by name; a nested dictionary is a group."""
    from psr.commands import analyse, data, eft, model
    from psr.commands.evaluate import evaluate
    from psr.commands.export import export
    from psr.commands.ift import ift, problems
    from psr.commands.report import report
    from psr.commands.responses import responses
    from psr.commands.search import search
    from psr.commands.serve import serve
    from psr.commands.sweep import sweep
    from psr.run.recipe import run

    return {
        "run": run,
        "sweep": sweep,
        "data": {
            "problems": problems,
            "ift": ift,
            "eft": {"verifier": eft.verifier, "prm800k": eft.prm800k, "search": eft.search},
            "responses": responses,
            "export": export,
            "arithmetic": data.arithmetic,
            "rate": data.rate,
            "split": data.split,
        },
        "model": {"init": model.init, "fetch": model.fetch},
        "search": search,
        "evaluate": evaluate,
        "analyse": {
            "all": analyse.everything,
            "compare": analyse.compare,
            "judge": analyse.judge,
            "steps": analyse.steps,
            "scaling": analyse.scaling,
            "scoring": analyse.scoring,
            "distribution": analyse.distribution,
        },
        "serve": serve,
        "report": report,
    }


def own_cli(args: list[str]) -> None:
    """Run one of the other commands."""
    chosen, prog = commands(), "psr"
    description: str | None = DESCRIPTION
    while args and isinstance(chosen.get(args[0]), dict):  # alone: levels down, jsonargparse loses its own messages
        chosen, prog, description, args = chosen[args[0]], f"{prog} {args[0]}", None, args[1:]
    CLI(chosen, args=args, prog=prog, description=description)


def main(args: list[str] | None = None) -> None:
    """The entry point of `psr`; tests call `main([...])`. Exits with 1 and one clear message on bad input."""
    args = sys.argv[1:] if args is None else args
    try:
        if args and args[0] in LIGHTNING_COMMANDS:
            lightning_cli(args)
        elif args and args[0] == "plan":
            plan_cli(args[1:])
        elif args and args[0] == "trial":
            from psr.commands.trial import trial

            trial(args[1:])
        else:
            own_cli(spelled(args))
    except PSRError as error:
        sys.exit(f"psr: {error}")
    except SIGTERMException:
        leave_mark()
        print("psr: stopped as told; the same command goes on from here", file=sys.stderr)
        sys.exit(PREEMPTED)


if __name__ == "__main__":
    main()
