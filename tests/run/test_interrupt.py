"""Ctrl-C in the middle of a run: what is done, what is lost, the command to go on, and exit code 130."""

import re
import signal
import time
from pathlib import Path

import pytest

from psr.processes.stopping import INTERRUPTED
from tests.chaos.runs import assert_same, before_the_loop, recipe, searched, start, stop
from tests.recipes.tiny_run import LIMIT, finished_run

SLOWLY = "--data.init_args.concurrency 1"
LAUNCH = "torchrun --standalone --nproc-per-node 2 --no-python"
TWO = f"{SLOWLY} --trainer.strategy ddp --trainer.devices 2 --trainer.callbacks+=callbacks.preemption.Preemption"


@pytest.mark.parametrize(
    ("options", "launch"), [(SLOWLY, []), pytest.param(TWO, ["--launch", LAUNCH], marks=pytest.mark.slow)], ids="12"
)
def test_ctrl_c_in_the_middle_of_a_search(tmp_path: Path, options: str, launch: list[str]):
    ours = recipe(tmp_path / "tiny", options, parallel=bool(launch))
    folder = before_the_loop(tmp_path / "run")
    process, end = start(ours, folder, *launch), time.monotonic() + LIMIT
    try:
        while searched(folder, 2) < 2:
            assert process.poll() is None and time.monotonic() < end, process.communicate()[1][-3000:]
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LIMIT)
    finally:
        stop(process)
    assert process.returncode == INTERRUPTED == 130, said[-3000:]
    done = "Done: arithmetic, split, model, sft. Not done: self_rewarding, of which stays what it had written by now"
    assert f"psr: stopped by Ctrl-C. {done}; what was under way in it is lost" in said
    assert re.search(rf"To go on: psr run {ours} --run-dir {folder} --judge random", said)
    assert "Traceback" not in said, said
    kept = searched(folder, 2)
    assert 2 <= kept < 10
    if not launch:
        assert f"psr: M1 has searched {kept} of 10 problems, which stay" in said
        assert "psr: 0 optimizer steps were made, and there is no checkpoint" in said
    again = start(ours, folder, *launch)
    try:
        _, said = again.communicate(timeout=LIMIT)
    finally:
        stop(again)
    assert again.returncode == 0, said[-3000:]
    assert_same(folder, finished_run().folder, 3e-5 if launch else 0.0)
