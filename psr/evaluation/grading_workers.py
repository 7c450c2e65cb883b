"""Processes that do algebra for grading, and can be stopped.

Each serves one question at a time (`psr.evaluation.algebra_worker` is their program). What is here leases them, ends
those that are stuck or gone, and starts others. Does not know what the questions mean.
"""

import atexit
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from enum import Enum
from pathlib import Path

from psr.evaluation.questions import Question

_ROOT = str(Path(__file__).parents[2])

logger = logging.getLogger(__name__)

_Worker = subprocess.Popen[str]
_changed = threading.Condition()  # guards the two below; notified when a worker comes free or is gone
_idle: list[_Worker] = []
_alive: set[_Worker] = set()


class Reply(Enum):
    """What a worker said; NONE where it was stopped or ended."""

    YES = "true\n"
    NO = "false\n"
    NONE = ""


def asked(question: Question, tolerance: float | None, timeout: float, workers: int) -> Reply:
    """A worker's reply to a question, within `timeout` seconds of processor time.

    Waits while `workers` of them are busy.

    Raises RuntimeError where no worker can start.
    """
    request = json.dumps({"question": question, "tolerance": tolerance, "timeout": timeout}) + "\n"
    while True:
        worker = _lease(workers)
        try:
            reply = _exchange(worker, request)
        except BrokenPipeError:  # it died while idle, which is no fault of this request
            _discard(worker)
            continue
        if reply in (Reply.YES.value, Reply.NO.value):
            with _changed:
                _idle.append(worker)
                _changed.notify()
            return Reply(reply)
        _discard(worker)
        slow = worker.returncode in (-signal.SIGPROF, -signal.SIGALRM)
        cause = f"took longer than {timeout} s" if slow else "crashed the worker"
        logger.info("graded as wrong, comparing %s: %r", cause, question)
        return Reply.NONE


def _lease(workers: int) -> _Worker:
    with _changed:
        _changed.wait_for(lambda: _idle or len(_alive) < workers)
        if _idle:
            return _idle.pop()
        # A fresh interpreter: nothing is forked from a process that may have threads, and the worker loads neither the
        # caller's main module nor torch. It finds psr where this process found it, installed or not.
        command = [sys.executable, "-P", "-m", "psr.evaluation.algebra_worker"]
        found = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": found}
        pipe = subprocess.PIPE
        worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, encoding="utf-8", env=env)
        _alive.add(worker)
    if _exchange(worker, "") != "ready\n":
        _discard(worker)
        raise RuntimeError(f"a grading worker ended while starting, see its error output above: {' '.join(command)}")
    return worker


def _exchange(worker: _Worker, request: str) -> str:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(request)
    worker.stdin.flush()
    return worker.stdout.readline()


def _discard(worker: _Worker) -> None:
    worker.kill()
    with contextlib.suppress(BrokenPipeError), worker:  # closes its pipes and waits for its end
        pass
    with _changed:
        _alive.discard(worker)
        _changed.notify()


@atexit.register
def _stop_workers() -> None:
    for worker in list(_alive):
        _discard(worker)
    _idle.clear()


def _forget_workers() -> None:
    """A forked child must not talk to its parent's workers, nor wait for a lock that a thread of the parent held."""
    global _changed
    _changed = threading.Condition()
    _idle.clear()
    _alive.clear()


os.register_at_fork(after_in_child=_forget_workers)
