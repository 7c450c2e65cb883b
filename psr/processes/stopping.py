"""Being told to stop: by SIGTERM (a scheduler, Kubernetes, torchrun) or SIGUSR1 (SLURM's warning of the time limit).

The handler only notes it. Who is at a place where all ranks can stop together asks, and stops there; a handler that did
more, a collective operation above all, would come in between those of the training.

What was stopped ends with the exit code PREEMPTED. Launchers do not hand it on: torchrun makes 1 of every failure, and
srun's is that of whichever process came off worst. So a process that stopped as told leaves a file as well, where the
one that started the launcher says.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
PREEMPTED = 75
"""The exit code of a process that stopped because it was told to, and that can be started again (EX_TEMPFAIL)."""
MARK = "PSR_STOPPED"
"""Environment variable that names the file to leave."""


class Preempted(SystemExit):
    """This process was told to stop, and has: the same command goes on from here."""


_asked: set[int] = set()


def listen(tell: Callable[[int], Any] | None = None) -> dict[int, Any]:
    """From now on the signals only make `stop_asked` true; returns the handlers that were there before.

    `tell` is called with the first signal, to hand it on to processes that this one started.
    """
    _asked.clear()

    def note(number: int, frame: FrameType | None) -> None:
        if tell is not None and not _asked:
            tell(number)
        _asked.add(number)

    return {one: signal.signal(one, note) for one in SIGNALS}


def stop_asked() -> bool:
    """Whether a signal has come since `listen`."""
    return bool(_asked)


def leave_mark() -> None:
    """Say that this process stopped as told, where somebody wants to know."""
    if path := os.environ.get(MARK):
        Path(path).touch()
