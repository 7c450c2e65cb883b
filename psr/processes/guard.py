"""Runs a command, and ends it with all that it started once the process that started this one is gone.

Its standard input is a pipe that nobody writes to: the system closes it when the process at the other end ends, however
it does, SIGKILL included. Only the standard library, run as a script: it must start at once and import nothing of psr.

    guard.py SECONDS COMMAND ...    SECONDS is how long the command has to end by itself after SIGTERM
"""

import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    patience, command, alone = float(sys.argv[1]), sys.argv[2:], threading.Event()
    # What this process was given a share in (the lock of a folder), the command has too: it may outlive this process.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)
    # psr handles these, and closes the pipe. Ignored only from here on, as the command would inherit it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def end_group() -> None:
        os.killpg(0, signal.SIGKILL)  # itself included: the guard leads a process group of its own

    def end_with_parent() -> None:
        os.read(0, 1)  # blocks until the pipe is closed
        alone.set()
        child.terminate()
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            end_group()

    threading.Thread(target=end_with_parent, daemon=True).start()
    code = child.wait()
    if alone.is_set():  # the command has ended in time, but its own children may still run
        end_group()
    return code if code >= 0 else 128 - code  # ended by signal n: 128 + n, as in a shell


if __name__ == "__main__":
    sys.exit(main())
