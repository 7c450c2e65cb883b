"""SIGKILL at random moments, again and again, over all stages: the end is that of the run that nobody disturbed.

Prints every kill and where it came.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from psr.files.jsonl import read_json
from tests.chaos.runs import assert_same, before_the_loop, recipe, start, stop
from tests.recipes.tiny_run import LIMIT, TINY

pytestmark = pytest.mark.slow

KILLS, KILLS_OF_TWO = 30, 10
LAUNCH = "torchrun --standalone --nproc-per-node 2 --no-python"
SHARDED = (
    "--trainer.strategy psr.policy.sharding.ShardedStrategy --trainer.strategy.compute_dtype float32 "
    "--trainer.strategy.export_dtype float32 --trainer.devices 2"
)


LOOP = tuple(f"{what} of M{number}" for number in (2, 3) for what in ("search", "training"))
PLACES = ("arithmetic", "split", "model", "sft", *LOOP, "test")


def under_way(folder: Path) -> str | None:
    """Where a run is: a stage, or within the loop the model that it makes and what it does for it; None in between."""
    records = read_json(folder / "stages.json")
    stage = next((name for name, record in records.items() if record["seconds"] is None), None)
    if stage != "self_rewarding":
        return stage
    number = next((n for n in (2, 3) if not (folder / "models" / f"M{n}").exists()), None)
    if number is None:
        return None
    searching = not (folder / "iterations" / f"{number:02d}" / "search.json").exists()
    return f"{'search' if searching else 'training'} of M{number}"


def durations(folder: Path, begin: Callable[[Path], subprocess.Popen[str]]) -> dict[str, float]:
    """The seconds that an undisturbed run spends in every place."""
    process, seconds, last = begin(folder), dict.fromkeys(PLACES, 0.0), time.monotonic()
    while process.poll() is None:
        time.sleep(0.02)
        now = time.monotonic()
        if place := under_way(folder):
            seconds[place] += now - last
        last = now
    assert process.returncode == 0, process.communicate()[1][-3000:]
    return seconds


def reach(process: subprocess.Popen[str], folder: Path, place: str) -> bool:
    """Wait until the run is there; False where it has been there before, and has ended or gone on."""
    while process.poll() is None:
        here = under_way(folder)
        if here in PLACES and PLACES.index(here) >= PLACES.index(place):
            return here == place
        time.sleep(0.01)
    return False


def ours(pid: int) -> list[int]:
    """The process, and what it has started of psr and of launchers; not W&B's service or a worker that grades."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return [
        pid,
        *(one for one in found[1:] if any(name in words(one) for name in ("torchrun", "bin/psr ", "guard.py"))),
    ]


def words(pid: int) -> str:
    try:
        return " ".join(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0"))
    except OSError:
        return ""


def harass(
    tmp_path: Path,
    kills: int,
    places: Sequence[str],
    begin: Callable[[Path], subprocess.Popen[str]],
    prepare: Callable[[Path], Path],
    say: Callable[[str], None],
) -> tuple[Path, list[Path]]:
    """Undisturbed run, and so many kills of others, each at a random moment of the place whose turn it is."""
    undisturbed = prepare(tmp_path / "undisturbed")
    seconds = durations(undisturbed, begin)
    say(f"undisturbed: {', '.join(f'{place} {some:.1f} s' for place, some in seconds.items() if some)}")
    rng, where = random.Random(0), Counter[str]()
    runs: list[Path] = []
    while where.total() < kills:
        folder = prepare(tmp_path / f"run-{len(runs)}")
        runs.append(folder)
        for place in places[: kills - where.total()]:
            process = begin(folder)
            try:
                if not reach(process, folder, place):
                    continue
                time.sleep(rng.uniform(0.0, seconds[place]))
                alive = ours(process.pid)
                victim = rng.choice(alive)
                if process.poll() is None:
                    here, name = under_way(folder) or "in between", words(victim)[-60:]
                    os.kill(victim, signal.SIGKILL)
                    where[here] += 1
                    at = f"kill {where.total()} of run {len(runs)}, {here}"
                    say(f"{at}: {alive.index(victim) + 1} of {len(alive)}, {name}")
                    process.communicate(timeout=LIMIT)
                    assert process.returncode != 0
            finally:
                stop(process)
        process = begin(folder)
        _, said = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, said[-3000:]
    say(f"{where.total()} kills in {len(runs)} runs: {dict(where)}")
    return undisturbed, runs


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def to_terminal(text: str) -> None:
        with capsys.disabled():
            print(text, flush=True)

    return to_terminal


def test_thirty_kills_over_all_stages(tmp_path: Path, say: Callable[[str], None]):
    def prepare(folder: Path) -> Path:
        return folder

    def begin(folder: Path) -> subprocess.Popen[str]:
        return start(TINY, folder)

    undisturbed, runs = harass(tmp_path, KILLS, PLACES, begin, prepare, say)
    for folder in runs:
        assert_same(folder, undisturbed)


def test_ten_kills_of_two_processes_under_fsdp2(tmp_path: Path, say: Callable[[str], None]):
    """Of `psr run`, of torchrun, or of a rank; the next start waits until what the killed one left has ended."""
    sharded = recipe(tmp_path / "tiny", SHARDED, parallel=True)

    def begin(folder: Path) -> subprocess.Popen[str]:
        return start(sharded, folder, "--launch", LAUNCH, "--wait", "true")

    undisturbed, runs = harass(tmp_path, KILLS_OF_TWO, PLACES[4:8], begin, before_the_loop, say)
    for folder in runs:
        assert_same(folder, undisturbed, 1e-6)
