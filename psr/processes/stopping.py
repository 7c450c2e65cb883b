"""Preemption: SIGTERM (a scheduler, Kubernetes, torchrun) or SIGUSR1 (SLURM's warning before the time limit).

The handler only sets a flag. Code at a point where all ranks can stop together checks it and stops there; a handler
that did more, above all a collective operation, would interleave with those of the training.

A preempted process ends with the exit code PREEMPTED. Launchers do not pass it on: torchrun turns every failure into 1,
and srun reports the highest code of all processes. So a preempted process also leaves a marker file, at the path given
by whoever started the launcher.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
PREEMPTED = 75
"""The exit code of a preempted process, which can be started again (EX_TEMPFAIL)."""
MARK = "PSR_STOPPED"
"""Environment variable with the path of the marker file."""


class Preempted(SystemExit):
    """This process was preempted and has stopped: the same command resumes from here."""


INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 and the number of its signal, as shells have it."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, once everything has ended; says what is done and what is lost."""


def keyboard_interrupt(error: BaseException) -> bool:
    """Whether it comes of Ctrl-C. Lightning makes an exit with code 1 of it."""
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt)
    )


_asked: set[int] = set()  # signals received; module state, because a signal handler belongs to the whole process


def listen(tell: Callable[[int], Any] | None = None) -> dict[int, Any]:
    """Install handlers that only make `stop_asked` true; returns the previous handlers.

    `tell` is called with the first signal, to forward it to processes that this one started.
    """
    _asked.clear()

    def note(number: int, frame: FrameType | None) -> None:
        if tell is not None and not _asked:
            tell(number)
        _asked.add(number)

    return {one: signal.signal(one, note) for one in SIGNALS}


def stop_asked() -> bool:
    """Whether a signal has arrived since `listen`."""
    return bool(_asked)


def leave_mark() -> None:
    """Write the marker file that says this process was preempted, if its path is given."""
    if path := os.environ.get(MARK):  # set by `psr run --launch`
        Path(path).touch()
