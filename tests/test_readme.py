"""Commands in README and guides exist, with their options, recipes, configs and targets; links lead somewhere."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from psr.cli.commands import find, leaves
from psr.cli.lightning import PlanCLI, PSRLightningCLI
from psr.cli.main import command_parser
from psr.cli.spelling import spelled
from tests.recipes.tiny_run import ROOT

README = ROOT / "README.md"
GUIDES = [
    README,
    ROOT / "benchmarks" / "README.md",
    *sorted(ROOT.glob("psr/*/README.md")),
    *sorted(ROOT.glob("configs/*/README.md")),
]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
SHELL = ("", "bash", "sh", "shell", "console")


class ParserOnlyCLI(PSRLightningCLI):
    """The real parser of `psr fit`; nothing is made and nothing runs."""

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def shell_commands() -> Iterator[list[str]]:
    """The words of every command of ours in fenced blocks."""
    for language, block in FENCE.findall("".join(guide.read_text() for guide in GUIDES)):
        if language.strip() not in SHELL:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.removeprefix("$ ").split("&&"):
                words = part.strip().removeprefix(".venv/bin/")
                words = re.sub(r"^(?:[A-Z_]+=\S* +)+", "", words)  # settings of the environment
                if words.split(" ")[0] in ("psr", "make") or words.startswith("python benchmarks/"):
                    yield shlex.split(words, comments=True)


COMMANDS = list(shell_commands())


def placeholder(words: list[str]) -> bool:
    """A synopsis such as `psr run RECIPE_FOLDER`, not a command."""
    return any(re.fullmatch(r"[A-Z][A-Z_]+|\.\.\.|\[.*", word) for word in words)


def of(program: str) -> list[list[str]]:
    return [words[1:] for words in COMMANDS if words[0] == program and not placeholder(words[1:])]


def ids(words: list[str]) -> str:
    return " ".join(words)


def test_the_readme_shows_the_two_commands_and_a_recipe():
    assert README.is_file(), "README.md is missing: it is the first thing that a newcomer reads"
    assert ["make", "demo"] in COMMANDS and ["make", "test"] in COMMANDS
    assert any(words[:2] == ["psr", "run"] for words in COMMANDS)


@pytest.mark.parametrize("words", of("make"), ids=ids)
def test_make_has_the_target_and_its_variables(words: list[str]):
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, equals, _ = word.partition("=")
        pattern = rf"^{re.escape(name)} \?=" if equals else rf"^{re.escape(name)}:"
        assert re.search(pattern, makefile, re.MULTILINE), f"the Makefile has no {name}"


def check_files(words: list[str]) -> None:
    """Config files, and the recipe with its overlay, stand where the command looks for them."""
    for option, value in pairwise(words):
        if option in ("--config", "-c"):
            assert (ROOT / value).exists(), f"there is no {value}"
        if option == "--overlay":
            assert (ROOT / words[1] / f"{value}.yaml").is_file(), f"{words[1]} has no overlay {value}"
    if words[0] == "run":
        assert (ROOT / words[1] / "recipe.yaml").is_file(), f"{words[1]} is no recipe"


@pytest.mark.parametrize("words", of("psr"), ids=ids)
def test_psr_accepts_the_command(words: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    if words[-1] == "--help":
        assert not words[:-1] or any(name.startswith(" ".join(words[:-1])) for name in leaves())
        return
    check_files(words)
    command, path, options = find(spelled(words))
    if command.parsed:
        command_parser(command.function(), path).parse_args(options)
    elif words[0] == "plan":
        PlanCLI(args=["fit", *words[1:]])
    else:
        ParserOnlyCLI(args=words)


@pytest.mark.parametrize("words", of("python"), ids=ids)
def test_a_benchmark_accepts_its_options(words: list[str]):
    script, *options = words
    assert (ROOT / script).is_file(), f"there is no {script}"
    called = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for option in options:
        if option.startswith("--"):
            assert option.partition("=")[0] in called.stdout, f"{script} has no {option}"


def test_the_recipes_of_the_readme_exist():
    for name in sorted(set(re.findall(r"\bconfigs/[\w.-]+", README.read_text()))):
        assert Path(ROOT / name).exists(), f"README.md names {name}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: str(guide.relative_to(ROOT)))
def test_links_lead_somewhere(guide: Path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", guide.read_text()):
        assert (guide.parent / target).exists(), f"{guide.relative_to(ROOT)} links to {target}"
