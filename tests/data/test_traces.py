"""The journal: a kill loses at most the line that it tore, and nothing that is wrong is read in silence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from psr.data.traces import TraceJournal
from psr.files.jsonl import DataError
from psr.records import Judgement, Problem, StepNode, Trajectory
from tests.scripted import candidate


def trajectory(name: str, version: str = "M1") -> Trajectory:
    judgement = Judgement(0, 1, 1, "because \u2028 of ünïcode\r\n[[B]]")
    node = StepNode(0, (candidate("ä\n"), candidate("b\n")), (judgement,), (0, 1), 1, 0, "kept")
    return Trajectory(Problem(name, "3+4"), (1, 2), (node,), False, version, 0.25)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of two problems, of which the process has ended."""
    path = tmp_path / "iterations" / "02" / "traces.jsonl"
    journal = TraceJournal(path, "M1")
    assert journal.trajectories == {}
    journal.append(trajectory("a"))
    journal.append(trajectory("b"))
    return path


def test_what_was_appended_is_there_at_once_and_after_reopening(path: Path):
    journal = TraceJournal(path, "M1")
    assert journal.trajectories == {"a": trajectory("a"), "b": trajectory("b")}
    journal.append(trajectory("c"))
    assert list(journal.trajectories) == list(TraceJournal(path, "M1").trajectories) == ["a", "b", "c"]
    assert len(path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize("missing", [1, 2, 40])
def test_a_torn_last_line_is_cut_off_and_written_anew(path: Path, missing: int):
    whole = path.read_bytes()
    path.write_bytes(whole[:-missing])
    journal = TraceJournal(path, "M1")
    assert list(journal.trajectories) == ["a"]
    assert path.read_bytes() == whole[: whole.index(b"\n") + 1]
    journal.append(trajectory("b"))
    assert path.read_bytes() == whole


def test_a_journal_of_one_torn_line_is_empty(path: Path):
    path.write_bytes(path.read_bytes()[:10])
    assert TraceJournal(path, "M1").trajectories == {}
    assert path.read_bytes() == b""


@pytest.mark.parametrize("broken", ["{", '{"problem": 1}', "[]", "null", '{"id": "a", "problem": "3+4"}'])
def test_a_broken_line_in_the_middle_is_named_and_kept(path: Path, broken: str):
    first, second, _ = path.read_text(encoding="utf-8").split("\n")
    path.write_text(f"{first}\n{broken}\n{second}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"traces\.jsonl, line 2: not a trajectory .*delete the line"):
        TraceJournal(path, "M1")
    assert broken in path.read_text(encoding="utf-8")


def test_lines_of_other_weights_are_refused(path: Path):
    with pytest.raises(
        DataError, match=r"traces\.jsonl, line 1: searched by weights 'M1', not 'M2'.*new run directory"
    ):
        TraceJournal(path, "M2")


def test_a_line_is_one_json_object_that_other_programs_read(path: Path):
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [row["problem"]["id"] for row in rows] == ["a", "b"]
    assert rows[0]["nodes"][0]["scores"] == [0, 1]


def test_an_appended_line_survives_a_kill_of_the_process(path: Path):
    script = f"""
import os, signal
from psr.data.traces import TraceJournal
from tests.data.test_traces import trajectory
journal = TraceJournal({str(path)!r}, "M1")
journal.append(trajectory("c"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == -9
    assert TraceJournal(path, "M1").trajectories["c"] == trajectory("c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finished": 1}, "finished: Input should be a valid boolean"),
        ({"prompt_ids": ["7"]}, "prompt_ids.0: Input should be a valid integer"),
        ({"problem": {"id": 1, "problem": "x"}}, "problem.id: Input should be a valid string"),
        ({"weights_version": None}, "weights_version: Input should be a valid string"),
    ],
)
def test_a_field_of_another_type_is_named(path: Path, change: dict[str, object], message: str):
    row = json.loads(path.read_text(encoding="utf-8").split("\n")[0])
    path.write_text(json.dumps({**row, **change}) + "\n")
    with pytest.raises(DataError, match=rf"traces\.jsonl, line 1: not a trajectory \({message}"):
        TraceJournal(path, "M1")


@pytest.mark.parametrize("change", [{"chosen": 2}, {"rejected": -1}, {"scores": [1]}])
def test_a_step_whose_numbers_are_not_of_its_candidates_is_named(path: Path, change: dict[str, object]):
    row = json.loads(path.read_text(encoding="utf-8").split("\n")[0])
    path.write_text(json.dumps({**row, "nodes": [{**row["nodes"][0], **change}]}) + "\n")
    with pytest.raises(DataError, match=r"line 1: not a trajectory \(nodes\.0: .*are not of its 2 candidates"):
        TraceJournal(path, "M1")


def test_a_problem_that_was_searched_twice_is_named(path: Path):
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(DataError, match=r"traces\.jsonl, line 3: the problem 'a' once more"):
        TraceJournal(path, "M1")
