"""What `psr run` leaves on the screen: the table, the report as a link, and what to try next."""

import os
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from psr.errors import PSRError
from psr.run.folder import RunFolder
from psr.run.gate import best_line, best_model, gate_table
from psr.run.results import read_results, results_table


def show_end(folder: RunFolder, console: Console, execute: Callable[[list[str]], None]) -> None:
    """Print the table of a run and write its report, if it made any model that was measured.

    The report is no stage: it is written anew every time, and the run is done whether or not it can be.
    """
    results = read_results(folder.results)
    for shown in (results_table(results), gate_table(results), best_line(results)):
        if shown is not None:
            console.print(shown)
    console.print(f"written to {folder.results}", soft_wrap=True)
    if not results["models"]:
        return
    try:
        execute(["report", str(folder.root), "--images=false"])
    except PSRError as error:
        console.print(f"no report: {error}", soft_wrap=True)
    console.print()
    for command, what in next_commands(folder, best_model(results)):
        console.print(f"  {what}\n    [bold]{command}[/bold]", soft_wrap=True, highlight=False)


def next_commands(folder: RunFolder, best: str) -> list[tuple[str, str]]:
    """(command, what it does) of what to try after a run."""
    root = shown_path(folder.root)
    return [
        (f"psr solve --model {root}/models/{best}", f"watch {best} solve a problem of yours, step by step"),
        (f"psr report {root}", "the report again, with every figure as an image"),
        (f"psr analyse all {root}", "the paper's other tables and figures, measured on this run"),
    ]


def shown_path(path: Path) -> str:
    """As a person at the command line would write it: relative where it lies below the working directory."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
