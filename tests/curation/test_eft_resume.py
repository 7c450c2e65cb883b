"""`psr data eft --from search` killed with SIGKILL at random moments: the same files, and every request sent once."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from psr.files.jsonl import write_jsonl
from tests.curation.annotator.endpoint import FakeEndpoint, serving
from tests.recipes.tiny_run import environment

pytestmark = pytest.mark.slow

KILLS = 10
PROBLEMS = 24
FILES = ("eft.jsonl", "eft.heldout.jsonl", "eft.rejects.jsonl", "eft.md")


def config(folder: Path, llama: Path, url: str) -> list[str]:
    """A command line for `folder`: a random policy proposes, a random PRM values, the server judges."""
    engine = {"class_path": "LocalEngine", "init_args": {"max_batch": 8}}
    settings = {
        "model": str(llama),
        "problems": "problems.jsonl",
        "out": "eft.jsonl",
        "engine": engine,
        "prm": {"model": str(llama), "engine": engine, "template": "{problem}\n"},
        "search": {"iterations": 3, "width": 4, "temperature": 2.0, "top_p": 1.0, "max_step_tokens": 12},
        "prompts": {"judge": "{problem}\n{steps}A {a}\nB {b}\n", "reason": "{problem}\n", "step_marker": ""},
        "annotator": {"url": url, "model": "m", "concurrency": 2},
        "margin": 0.0,
        "heldout": 6,
        "concurrency": 4,
    }
    folder.mkdir()
    write_jsonl(folder / "problems.jsonl", [{"id": str(i), "problem": f"{i}+1"} for i in range(PROBLEMS)])
    (folder / "eft.yaml").write_text(yaml.safe_dump(settings))
    return [sys.executable, "-m", "psr.cli.main", "data", "eft", "--from", "search", "--config", "eft.yaml"]


def label(prompt: str) -> str:
    """Agrees with itself; with the PRM in about half of the cases."""
    a, b = (line[2:] for line in prompt.splitlines()[-2:])
    return f"I have seen both. [[{'A' if sum(map(ord, a)) > sum(map(ord, b)) else 'B'}]]"


def test_ten_kills_change_nothing(tmp_path: Path, llama: Path):
    with serving(FakeEndpoint(answer=label)) as calm:
        command = config(tmp_path / "calm", llama, calm.url)
        started = time.monotonic()
        subprocess.run(command, cwd=tmp_path / "calm", env=environment(), check=True, capture_output=True)
        seconds = time.monotonic() - started
    rng = random.Random(0)
    with serving(FakeEndpoint(answer=label, seconds=0.05)) as server:
        command = config(tmp_path / "killed", llama, server.url)
        for _ in range(KILLS):
            process = subprocess.Popen(
                command,
                cwd=tmp_path / "killed",
                env=environment(),
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                process.wait(rng.uniform(0.3, 1.0) * seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        subprocess.run(command, cwd=tmp_path / "killed", env=environment(), check=True, capture_output=True)
    for name in FILES:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes(), name
    assert server.asked == calm.asked and set(server.asked.values()) == {1}
