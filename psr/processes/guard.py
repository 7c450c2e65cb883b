"""Runs a command and ends it, with all that it started, when whoever started this process is gone.

Its standard input is a pipe that nobody writes to: the system closes it when the other end's process ends, in whatever
way, SIGKILL included. Plain standard library, run as a script: it must start at once and import nothing of psr.

    guard.py SECONDS COMMAND ...    SECONDS is how long the command has to end by itself after SIGTERM
"""

import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    patience, command, alone = float(sys.argv[1]), sys.argv[2:], threading.Event()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    for number in (signal.SIGINT, signal.SIGTERM):  # psr answers them; only now, or the command inherits it
        signal.signal(number, signal.SIG_IGN)

    def end_group() -> None:
        os.killpg(0, signal.SIGKILL)  # the guard leads its own process group

    def end_with_parent() -> None:
        os.read(0, 1)
        alone.set()
        child.terminate()
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            end_group()

    threading.Thread(target=end_with_parent, daemon=True).start()
    code = child.wait()
    if alone.is_set():  # what the command started may still be there
        end_group()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
