"""Told to stop in the middle of a search, a recipe on two processes ends with 75, and the same command finishes it."""

import signal
import time
from pathlib import Path

import pytest

from psr.processes.stopping import PREEMPTED
from tests.chaos.runs import before_the_loop, recipe, searched, start
from tests.ranks.test_self_rewarding import lines, texts, weights
from tests.recipes.tiny_run import LIMIT, finished_run

pytestmark = pytest.mark.slow

OPTIONS = (
    "--trainer.strategy ddp --trainer.devices 2 --trainer.callbacks+=callbacks.preemption.Preemption "
    "--data.init_args.concurrency 1"
)
LAUNCH = "torchrun --standalone --nproc-per-node 2 --shutdown-timeout 300 --no-python"
PROBLEMS = {2: 10, 3: 12}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, set[str]]]:
    """The run directory, stopped in both searches and finished; and which problems were searched at each stop."""
    parent = tmp_path_factory.mktemp("stopped")
    ours, folder, found = recipe(parent / "tiny", OPTIONS, parallel=True), before_the_loop(parent / "run"), {}
    for number in PROBLEMS:
        process, end = start(ours, folder, "--launch", LAUNCH), time.monotonic() + LIMIT
        while searched(folder, number) < 2:
            assert process.poll() is None and time.monotonic() < end, process.communicate()[1][-5000:]
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=LIMIT)
        assert process.returncode == PREEMPTED, said[-5000:]
        found[number] = {one.problem.id for one in lines(folder, number)}
    last = start(ours, folder, "--launch", LAUNCH)
    _, said = last.communicate(timeout=LIMIT)
    assert last.returncode == 0, said[-5000:]
    return folder, found


@pytest.mark.parametrize("number", PROBLEMS)
def test_what_was_searched_stays_and_no_problem_is_searched_twice(
    stopped: tuple[Path, dict[int, set[str]]], number: int
):
    folder, found = stopped
    assert 2 <= len(found[number]) < PROBLEMS[number], "the stop came in the middle"
    at_the_end = [one.problem.id for one in lines(folder, number)]
    assert set(at_the_end[: len(found[number])]) == found[number]
    assert len(at_the_end) == len(set(at_the_end)) == PROBLEMS[number]
    assert texts(folder, number) == texts(finished_run().folder, number)


@pytest.mark.parametrize("number", PROBLEMS)
def test_the_models_are_those_of_one_process_that_was_not_stopped(
    stopped: tuple[Path, dict[int, set[str]]], number: int
):
    ours, theirs = weights(stopped[0], number), weights(finished_run().folder, number)
    assert max(float((ours[name] - value).abs().max()) for name, value in theirs.items()) < 3e-5


def test_all_of_it_is_one_wandb_run(stopped: tuple[Path, dict[int, set[str]]]):
    stage = stopped[0] / "self_rewarding"
    runs = [path.name.rpartition("-")[2] for path in (stage / "wandb").glob("offline-run-*")]
    assert len(runs) == 3 and set(runs) == {(stage / "wandb-run-id").read_text()}
