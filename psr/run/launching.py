"""A stage in processes of its own, by the command that the user names: torchrun, srun.

They end with this process, however it ends, and until then the run directory stays locked. Knows processes. Does not
know what they do.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from psr.errors import UsageError
from psr.processes import guard
from psr.processes.stopping import MARK, PREEMPTED, listen, stop_asked

PATIENCE = 600
"""Seconds that the processes have to end by themselves once they are told to: a large checkpoint takes minutes."""


def launch_stage(launch: str, arguments: list[str], mark: Path, share: Sequence[int] = ()) -> None:
    """Run a stage in the processes that `launch` starts, and end as they do where that is not well.

    A signal to stop is handed on to them, Ctrl-C too. Processes that stop as told leave the file `mark`: what exit code
    the launcher makes of theirs is its own affair. They inherit the descriptors in `share`.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when they have ended.
    """
    words = shlex.split(launch)
    if not words or shutil.which(words[0]) is None:
        raise UsageError(f"launch is {launch!r}, and there is no program of that name: torchrun and srun are usual")
    mark.unlink(missing_ok=True)
    guarded = [sys.executable, "-I", guard.__file__, str(PATIENCE), *words, "psr", *arguments]
    # In a group of its own, or Ctrl-C in a terminal would reach the launcher by two ways at the same time.
    process = subprocess.Popen(
        guarded,
        stdin=subprocess.PIPE,
        env={**os.environ, MARK: str(mark)},
        pass_fds=tuple(share),
        start_new_session=True,
    )
    assert process.stdin is not None
    tell = process.stdin.close  # the guard sends SIGTERM, which is what every launcher hands on
    before = listen(lambda number: tell())
    try:
        code = process.wait()
    except KeyboardInterrupt:
        tell()
        process.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if mark.exists() or stop_asked():
        sys.exit(PREEMPTED)
    if code:
        sys.exit(code)
