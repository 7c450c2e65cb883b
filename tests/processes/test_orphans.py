"""What a launcher has started ends when the launcher is killed, also where that was before it could look."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.engines.conftest import gone
from tests.recipes.tiny_run import environment

RANK = """
import os, sys, time
time.sleep(float(sys.argv[1]))
from psr.processes.orphans import end_with_parent
end_with_parent()
print(os.getpid(), flush=True)
time.sleep(60)
"""
LAUNCHER = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {RANK!r}, sys.argv[1]])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("late", [0.0, 1.0], ids=["in time", "too late to look"])
def test_a_rank_ends_with_its_launcher(late: float):
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(late)], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    rank = int(launcher.stdout.readline())
    try:
        if not late:
            assert int(launcher.stdout.readline()) == rank
            time.sleep(1.5)
        assert not gone(rank, within=0.1)
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        assert gone(rank, within=20)
    finally:
        if not gone(rank, within=0.1):
            os.kill(rank, signal.SIGKILL)
