"""Being told to stop: by SIGTERM (a scheduler, Kubernetes, torchrun) or SIGUSR1 (SLURM's warning of the time limit).

The handler only notes it. Who is at a place where all ranks can stop together asks, and stops there; a handler that did
more, a collective operation above all, would come in between those of the training.
"""

import signal
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
PREEMPTED = 75
"""The exit code of a process that stopped because it was told to, and that can be started again (EX_TEMPFAIL)."""

_asked: set[int] = set()


def listen(tell: Any = None) -> None:
    """From now on the signals only make `stop_asked` true; `tell` hands them on to processes that this one started."""
    _asked.clear()

    def note(number: int, frame: FrameType | None) -> None:
        if tell is not None and not _asked:
            tell(number)
        _asked.add(number)

    for one in SIGNALS:
        signal.signal(one, note)


def stop_asked() -> bool:
    """Whether a signal has come since `listen`."""
    return bool(_asked)
