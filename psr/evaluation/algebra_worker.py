"""The program of grading's worker processes: a line of JSON for a question, a line for the verdict.

It sets alarms for itself before each question and leaves the signals' default action in place, so that the kernel ends
it on time in the midst of any computation, even when the process that asked is gone by then. Knows nothing of who asks.
"""

import contextlib
import json
import logging
import os
import resource
import signal
import sys
from functools import partial

from psr.evaluation.algebra import equal
from psr.evaluation.questions import settle

MEMORY = 2 << 30  # bytes of address space; a worker needs about 0.2 GiB of it
WALL = 5
"""A question may take so many times its processor time on the wall."""

# Asked before the first question, for they build the parser's tables and sympy's: what comes then does not pay for it.
_WARMING = [
    (r"\frac{\sqrt{3}}{2}+\pi", r"\sqrt{0.75}+\pi"),
    ("x^{2}-2x+1", "(x-1)^{2}"),
    (r"2\sin x\cos x", r"\sin(2x)"),
    ("y=2x+3", "2x-y+3=0"),
]


def serve() -> None:
    """Answers questions from standard input until that closes."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # a parser's complaint on standard output would pass for a reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked, which then stops its workers
    for alarm in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(alarm, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {alarm})
    for limited, amount in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # some systems have no such limit; the timeout still holds
            resource.setrlimit(limited, (amount, resource.getrlimit(limited)[1]))
    logging.disable()
    for answer, gold in _WARMING:
        equal(answer, gold)
    print("ready", file=replies, flush=True)
    os.dup2(silence, 2)
    for line in sys.stdin:
        request = json.loads(line)
        # Processor time, so that a verdict does not depend on what else runs; and as a backstop time on the wall.
        signal.setitimer(signal.ITIMER_PROF, request["timeout"])
        signal.setitimer(signal.ITIMER_REAL, WALL * request["timeout"])
        try:
            verdict = settle(request["question"], partial(equal, tolerance=request["tolerance"]))
        except Exception:  # an answer that no parser can take is a wrong answer
            verdict = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(verdict), file=replies, flush=True)


if __name__ == "__main__":
    serve()
