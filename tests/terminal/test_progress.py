"""Progress where there is a terminal (a real one, in a process of its own), and where there is none."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from psr.terminal.progress import RANK_VARIABLES, duration, noted_in, progress
from tests.recipes.tiny_run import environment

SAID = re.compile(r"\d\d:\d\d:\d\d (.*)")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return io.StringIO()


def said(log: io.StringIO) -> list[str]:
    """The lines without the time of day."""
    found = [SAID.fullmatch(line) for line in log.getvalue().splitlines()]
    assert all(found), log.getvalue()
    return [match[1] for match in found if match]


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(log: io.StringIO):
    with progress("M1 [searches]", 400, console=Console(file=log), every=0.2) as shown:
        shown.advance(100, "57 in flight")
        time.sleep(0.5)  # nothing advances, and the log says so
        assert len(said(log)) == 2
        shown.advance(300)
    first, *_, last = said(log)
    assert re.fullmatch(r"M1 \[searches\]: 100 of 400 \(25%\) in 0 s, \d+/s, \d s left, 57 in flight", first)
    assert re.fullmatch(r"M1 \[searches\]: 400 of 400 \(100%\) in [01] s, \d+/s, 57 in flight", last)
    assert "\r" not in log.getvalue() and "\x1b" not in log.getvalue()


def test_a_phase_that_fails_says_how_far_it_came(log: io.StringIO):
    with pytest.raises(ZeroDivisionError), progress("solves", 3, console=Console(file=log)) as shown:
        shown.advance()
        raise ZeroDivisionError
    assert len(said(log)) == 1 and said(log)[0].startswith("solves: 1 of 3 (33%)")


def test_what_was_done_before_counts_for_the_share_and_not_for_the_rate(log: io.StringIO):
    with progress("steps", 1000, before=900, console=Console(file=log), every=0.2) as shown:
        time.sleep(0.3)
        shown.advance(1)
        time.sleep(0.3)
    assert said(log)[0] == "steps: 900 of 1,000 (90%) in 0 s"
    seconds_left = re.search(r", (\d+) s left", said(log)[1])
    assert seconds_left and int(seconds_left[1]) > 20


def test_only_the_first_of_several_processes_speaks(log: io.StringIO, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "0")
    with progress("searches", 1, console=Console(file=log)):
        pass
    assert len(said(log)) == 1
    monkeypatch.setenv("LOCAL_RANK", "1")
    with progress("searches", 1, console=Console(file=log)) as shown:
        shown.advance()
    assert len(said(log)) == 1


def test_a_phase_is_noted_for_who_looks_on_and_the_note_is_gone_at_the_end(log: io.StringIO, tmp_path: Path):
    file = tmp_path / "progress.json"
    with pytest.raises(ZeroDivisionError), noted_in(file):
        with progress("M1 searches", 8, console=Console(file=log)) as shown:
            shown.advance(6, "57 in flight")
            time.sleep(1.2)
            noted = json.loads(file.read_text())
            assert noted["title"] == "M1 searches" and (noted["done"], noted["total"]) == (6, 8)
            assert noted["rate"] == pytest.approx(5, rel=0.3) and noted["seconds_left"] == pytest.approx(0.4, rel=0.3)
            assert abs(noted["time"] - time.time()) < 1
        with progress("training", 2, console=Console(file=log)):
            assert list(tmp_path.iterdir()) == [file]
            raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == [] and "PSR_PROGRESS" not in os.environ


def test_a_terminal_gets_a_bar(tmp_path: Path):
    code = """
from psr.terminal.progress import progress
with progress("M1 [searches]", 8) as shown:
    for _ in range(8):
        shown.advance(note="57 in [flight]")
"""
    leader, follower = pty.openpty()
    settings = {**environment(), "TERM": "xterm-256color", "COLUMNS": "120"}
    subprocess.run([sys.executable, "-c", code], stdout=follower, stderr=follower, env=settings, timeout=60, check=True)
    os.close(follower)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(leader, 1 << 16).decode())
    os.close(leader)
    assert "━━━" in text and "8/8" in text
    assert "M1 [searches]" in text and "57 in [flight]" in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.7, "1 min 00 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")],
)
def test_durations_are_said_as_a_person_says_them(seconds: float, words: str):
    assert duration(seconds) == words
