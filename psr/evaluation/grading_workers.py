"""Worker processes that compare answers with math-verify, and that can be stopped.

Each serves one request at a time, a line of JSON, and replies with a line, "true" or "false". It sets an alarm for
itself before each request and keeps the signal's default action, so that the kernel ends it on time in the middle of
any computation, even if the process that asked is gone by then.

This file is also the program that the workers run: importing it must stay cheap, so at the top it imports nothing
outside the standard library. Does not know boxes, numbers or problems.
"""

import atexit
import contextlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

logger = logging.getLogger(__name__)

WORKER_MEMORY = 2 << 30  # bytes of address space; a worker needs about 0.2 GiB of it

_Worker = subprocess.Popen[str]
_changed = threading.Condition()  # guards the two below; notified when a worker becomes idle or is gone
_idle: list[_Worker] = []
_alive: set[_Worker] = set()


def matched(equal: Sequence[Sequence[bool]]) -> bool:
    """Whether each row can be assigned a column of its own where it is True (bipartite matching by augmenting paths).

    Taking the first fit is not enough: equality within a tolerance is not transitive, so it may block a later row.
    """
    owners: dict[int, int] = {}  # the row of each assigned column

    def place(row: int, tried: set[int]) -> bool:
        for column, fits in enumerate(equal[row]):
            if fits and column not in tried:
                tried.add(column)
                # A column that is taken may be had if its owner finds another one.
                if column not in owners or place(owners[column], tried):
                    owners[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(equal)))


def verified(case: dict[str, Any], *, timeout: float, workers: int) -> bool:
    """The verdict of math-verify on a case: `answers` against `golds`, within `tolerance` if it is not None.

    Waits while `workers` workers are busy. What takes longer than `timeout` seconds, or crashes its worker, is wrong.
    Raises RuntimeError if no worker can start.
    """
    request = json.dumps({**case, "timeout": timeout}) + "\n"
    while True:
        worker = _lease(workers)
        try:
            reply = _exchange(worker, request)
        except BrokenPipeError:  # it died while idle, for which this request is not to blame: try another
            _discard(worker)
            continue
        if reply in ("true\n", "false\n"):
            with _changed:
                _idle.append(worker)
                _changed.notify()
            return reply == "true\n"
        _discard(worker)
        cause = f"took longer than {timeout} s" if worker.returncode == -signal.SIGALRM else "crashed the worker"
        logger.info("graded as wrong, comparing with %r %s: %r", case["golds"], cause, case["answers"])
        return False


def _lease(workers: int) -> _Worker:
    """An idle worker, or a new one if fewer than `workers` are alive; the caller has it to itself."""
    with _changed:
        _changed.wait_for(lambda: _idle or len(_alive) < workers)
        if _idle:
            return _idle.pop()
        # A fresh interpreter that runs this file: nothing is forked from a process that may have threads, and the
        # worker loads neither the caller's main module nor torch. -P keeps this folder, whose `statistics` is not the
        # standard library's, off the module path.
        command = [sys.executable, "-P", __file__]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
        _alive.add(worker)
    # Outside the lock, as importing math-verify takes a while: other threads can use idle workers meanwhile.
    if _exchange(worker, "") != "ready\n":
        _discard(worker)
        raise RuntimeError(f"a grading worker ended while starting, see its error output above: {' '.join(command)}")
    return worker


def _exchange(worker: _Worker, request: str) -> str:
    """Send a request and read the reply; an empty one if the worker died over it."""
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(request)
    worker.stdin.flush()
    return worker.stdout.readline()


def _discard(worker: _Worker) -> None:
    """Kill a worker whose pipes may hold half a reply, and make room for another."""
    worker.kill()
    with contextlib.suppress(BrokenPipeError), worker:  # closes its pipes and reaps it
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
    """In a forked child: its parent's workers are not its own, and a thread of the parent may have held the lock."""
    global _changed
    _changed = threading.Condition()
    _idle.clear()
    _alive.clear()


os.register_at_fork(after_in_child=_forget_workers)


def _serve() -> None:
    """The worker's main loop: answers requests from standard input until that is closed."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # a parser's message on standard output would be taken for a reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked, which then stops its workers
    # By default the alarm kills. A Python handler would have to wait for a long computation in C to return.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    for limited, amount in ((resource.RLIMIT_AS, WORKER_MEMORY), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # some systems have no such limit; the timeout still holds
            resource.setrlimit(limited, (amount, resource.getrlimit(limited)[1]))

    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable()  # math-verify warns that its own timeouts, which need the alarm too, are off
    # LaTeX only: the plain-text extraction of math-verify takes the last number of any sentence for the answer.
    targets = [LatexExtractionConfig(boxed_match_priority=0)]

    def equal(answer: str, gold: str, tolerance: float | None) -> bool:
        parsed = [parse(rf"\boxed{{{text}}}", targets, parsing_timeout=None) for text in (gold, answer)]
        if tolerance is not None and all(parsed):
            with contextlib.suppress(AttributeError, TypeError, ValueError):  # not numbers: they are compared as usual
                return abs(float(parsed[0][0].evalf()) - float(parsed[1][0].evalf())) <= tolerance
        return bool(verify(*parsed, timeout_seconds=None))

    def alike(answers: list[str], golds: list[str], tolerance: float | None) -> bool:
        return matched([[equal(answer, gold, tolerance) for answer in answers] for gold in golds])

    equal(r"\frac{1}{2}", "0.5", None)  # builds the parser's tables, so that the first request does not pay for them
    print("ready", file=replies, flush=True)
    os.dup2(silence, 2)  # only now: errors while starting should be seen
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["timeout"])
        try:
            verdict = alike(request["answers"], request["golds"], request["tolerance"])
        except Exception:  # an answer that no parser can take is a wrong answer
            verdict = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(verdict), file=replies, flush=True)


if __name__ == "__main__":
    _serve()
