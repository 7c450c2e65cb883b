"""`psr solve`: a search as it goes, beside a greedy solution or another model, safe to look at."""

import asyncio
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from psr.cli.main import main
from psr.cli.spelling import spelled
from psr.commands.solve import names_of, setting_of, solve_one
from psr.commands.solve_output import Attempt, SideBySide
from psr.engines.local import LocalEngine
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.records import Candidate, Judgement, Problem, StepNode
from psr.search.step_search import SearchSettings, expand, step_search
from psr.search.watched import WatchedJudge
from psr.terminal.text import printable
from tests.recipes.tiny_run import TINY, finished_run
from tests.scripted import END, PreferenceJudge, ScriptedEngine

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\\boxed{7\x1b[8m}\r\b"
ACTING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def shown(*attempts: Attempt, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(SideBySide(attempts))
    return console.file.getvalue()  # type: ignore[attr-defined]


def node(texts: Sequence[str], judgements: Sequence[Judgement], depth: int = 0, final: bool = False) -> StepNode:
    candidates = tuple(Candidate((1,), text, -1.0, final) for text in texts)
    return expand(depth, candidates, judgements, SearchSettings())


def test_nothing_that_a_model_writes_acts_on_the_terminal():
    one = node([HOSTILE, "fine"], [Judgement(0, 1, 0, HOSTILE), Judgement(1, 0, 0, HOSTILE)])
    attempt = Attempt(HOSTILE, "judging", [one], one.candidates, HOSTILE, True, show_replies=True)
    text = shown(attempt)
    assert not ACTING.search(text), ACTING.findall(text)
    assert text.count("\\x1b]0;owned\\x07") >= 5 and "answer 7\\x1b[8m" in text
    assert printable("a\tb\nc\u200b\ud800é") == "a    b\nc\\u200b\\ud800é"


def test_a_step_shows_wins_verdicts_and_roles():
    judgements = [
        *(Judgement(0, 1, 1), Judgement(1, 0, 1)),
        *(Judgement(0, 3, 0), Judgement(3, 0, 3)),
        *(Judgement(1, 3, None), Judgement(3, 1, 1)),
    ]
    lines = [line.strip() for line in shown(Attempt("M1", nodes=[node(["a", "b", "b", "c"], judgements)])).splitlines()]
    assert lines[2:] == [
        "Step 1  kept",
        "b  c2 1 win, 2 times, chosen",
        "a  c1 0 wins, rejected",
        "c  c3 0 wins",
        "c2 beats c1",
        "c1 and c3: the orders disagree",
        "c2 and c3: no verdict",
    ]


@pytest.mark.parametrize(
    ("solution", "finished", "said"),
    [("so \\boxed{7}", True, "answer 7"), ("so 7", True, "no boxed answer"), ("\\boxed{7}", False, "did not come to")],
)
def test_the_answer_counts_only_at_the_end_of_a_solution(solution: str, finished: bool, said: str):
    assert said in shown(Attempt("M1", solution=solution, finished=finished))


def test_attempts_stand_beside_each_other_where_there_is_room():
    two = [Attempt("M1", solution="one"), Attempt("M2", solution="two")]
    assert any("M1" in line and "M2" in line for line in shown(*two, width=120).splitlines())
    assert not any("M1" in line and "M2" in line for line in shown(*two, width=80).splitlines())


TREE = {
    "3+4\n": [["2\n", "1\n"], ["3\n", "1\n"]],
    "3+4\n2\n": [["5\n", "5\n"]],
    "3+4\n3\n": [["6 \\boxed{6}" + END, "4" + END]],
}
"""Prompt -> candidates of the first visit, of the second: a tie at step 2 takes step 1 back."""


def climbing(tokenizer: object) -> ScriptedEngine:
    visits = dict.fromkeys(TREE, 0)

    def script(prompt: str, sampling: object) -> Sequence[str]:
        if prompt in TREE:
            visits[prompt] += 1
            return TREE[prompt][min(visits[prompt], len(TREE[prompt])) - 1]
        a, b = prompt.rpartition("\nA ")[2].split("\nB ")
        return ["[[A]]" if a.strip() > b.strip() else "[[B]]"]

    return ScriptedEngine(tokenizer, script)  # type: ignore[arg-type]


def test_a_watched_search_is_the_search(llama: Path, encoder: Encoder):
    engine, seen = climbing(encoder.tokenizer), []
    judge = PreferenceJudge(lambda text: float(text.split()[0]))
    watched = WatchedJudge(judge, SearchSettings(), lambda: seen.append((len(watched.nodes), len(watched.waiting))))
    found = asyncio.run(step_search(Problem("p", "3+4"), engine, watched, encoder, SearchSettings()))
    assert tuple(watched.nodes) == found.nodes and found.finished
    assert [one.event for one in watched.nodes] == ["rolled_back", "tied", "kept", "kept"]
    assert seen == [(0, 2), (1, 0), (1, 2), (2, 0), (2, 2), (3, 0), (3, 2), (4, 0)]


def solved(engine: ScriptedEngine, folder: Path, prompts: Prompts, console: Console) -> None:
    found = setting_of(folder, engine, False)
    assert (found.prompts, found.search.ties) == (Prompts(), "advance"), "no run: the defaults, for solving"
    setting = replace(found, search=SearchSettings(), prompts=prompts)
    asyncio.run(solve_one("3+4", [folder], False, setting, console))


def test_a_small_screen_shows_the_last_steps_while_they_come_and_all_at_the_end(llama: Path, encoder: Encoder):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=9, color_system=None)
    solved(climbing(encoder.tokenizer), llama, encoder.prompts, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    live, _, final = text.rpartition("\x1b[?25h")
    frames = re.split(r"(?:\x1b\[[12][KA])+", live)
    assert max(frame.count("\n") for frame in frames) < 9
    assert any("Step 2" in frame and "judging" in frame for frame in frames)
    assert any("Step 2  kept" in frame for frame in frames), "the last lines are what a small screen shows"
    for words in ("taken back", "nobody won", "kept", "answer 6", "2 steps kept, 1 step taken back, 1 tie"):
        assert words in final
    assert final.index("taken back") < final.index("nobody won") < final.index("kept")


def options(model: Path, *more: str) -> list[str]:
    return ["solve", "--model", str(model), "--prompts", str(TINY / "prompts.yaml"), *more]


def test_models_and_ways_are_compared_on_the_command_line(llama: Path, qwen2: Path, capsys: pytest.CaptureFixture[str]):
    main(options(llama, "--problem", "3+4-5", "--compare", str(qwen2), "--greedy", "true", "--width", "2"))
    titles = re.findall(r"^(\S+, .*?) ─", capsys.readouterr().out, re.MULTILINE)
    names = [llama.name, qwen2.name]
    assert titles == [f"{name}, {way}" for name in names for way in ("step search", "greedy")]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("--model M 1+2", "--model M --problem=1+2"),
        ("1+2 --model M", "--problem=1+2 --model M"),
        ("--model=M --greedy 1+2", "--model=M --greedy=true --problem=1+2"),
        ("--model M --greedy --verdicts", "--model M --greedy=true --verdicts=true"),
        ("--model M --greedy true", "--model M --greedy true"),
        ("--model M", "--model M"),
        ("", ""),
    ],
)
def test_the_problem_may_stand_alone(words: str, meant: str):
    assert spelled(["solve", *words.split()]) == ["solve", *meant.split()]


def test_problems_are_asked_for_until_an_empty_line(
    llama: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO("3+4-5\n1+2\n\nnever asked\n"))
    loaded: list[str] = []
    load: Callable = LocalEngine.load_weights

    async def counted(engine: LocalEngine, folder: Path, version: str) -> None:
        loaded.append(version)
        await load(engine, folder, version)

    monkeypatch.setattr(LocalEngine, "load_weights", counted)
    main(options(llama, "--max_iterations", "2"))
    assert capsys.readouterr().out.count("step search ─") == 2
    assert len(loaded) == 1, "the model stays loaded"


def test_a_model_of_a_run_is_asked_as_in_the_run():
    run = finished_run().folder
    found = setting_of(run / "models" / "M2", LocalEngine(), False)
    assert found.prompts.step_separator == "\n" and found.prompts.step_marker == ""
    assert (found.search.width, found.search.max_step_tokens, found.judge.max_tokens) == (4, 16, 32)
    assert found.max_tokens == 40


def test_models_of_the_same_name_are_told_apart(tmp_path: Path):
    one, two = tmp_path / "a" / "models" / "M2", tmp_path / "b" / "models" / "M2"
    assert list(names_of([one, two]).values()) == ["a/models/M2", "b/models/M2"]
    assert list(names_of([one, one.with_name("M3")]).values()) == ["M2", "M3"]


def test_without_a_model_the_fix_is_named(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["solve", "--problem", "1+2"])
    assert "--model FOLDER" in str(ended.value)
