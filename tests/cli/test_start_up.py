"""Help and typing errors answer at once: what takes seconds to import is imported when a command runs, not before."""

import subprocess
import sys

import pytest

from psr.cli.commands import leaves
from tests.recipes.tiny_run import environment

HEAVY = ("torch", "lightning", "transformers", "datasets")
LOOK = f"""
import contextlib, io, sys
from psr.cli.main import main

shown = io.StringIO()
with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
    main(sys.argv[1:])
assert not any(name in sys.modules for name in {HEAVY}), [name for name in {HEAVY} if name in sys.modules]
"""
PARSED = [name for name, command in leaves().items() if command.parsed]
TYPED = [
    *("--help", "data --help", "data eft --help", "model --help", "analyse --help", "bogus", "data bogus"),
    *(f"{name} --help" for name in PARSED),
    *("run --bogus x", "report --bogus x", "search --widht 3", "evaluate --bogus x"),
]


@pytest.mark.parametrize("words", TYPED)
def test_nothing_heavy_is_imported_before_a_command_runs(words: str):
    """In a process of its own, since this one has imported everything."""
    ran = subprocess.run(
        [sys.executable, "-c", LOOK, *words.split()], env=environment(), capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


def test_the_look_sees_what_is_imported():
    ran = subprocess.run([sys.executable, "-c", f"import torch\n{LOOK}", "--help"], capture_output=True, text=True)
    assert ran.returncode != 0 and "torch" in ran.stderr
