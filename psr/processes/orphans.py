"""A process that a launcher started ends when the launcher is gone.

A launcher that is killed cannot end its processes. They would go on, unseen, beside those of the next start. Knows
processes. Does not know what they do.
"""

import os
import threading
import time

POLL = 1.0
"""Seconds between two looks at who the parent is."""


def end_with_parent() -> None:
    """From now on, end at once, as by SIGKILL, when the process that started this one has ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
