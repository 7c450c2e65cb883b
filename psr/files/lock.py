"""One process at a time works in a folder, on one machine or on many.

The file `lock` of the folder says who: process, host, command and since when. What keeps others out is the system's
lock on it (flock). It is freed by whatever ends its holder, SIGKILL and a loss of power included, and processes that
the holder starts can be given a share in it: then the folder is free when they have ended, too.

Between nodes flock holds where the file system shares it: NFS (version 4; version 3 with its lock daemon), GPFS, BeeGFS
and Lustre if mounted so. Elsewhere a second sign counts: the holder writes a new number into the file every few
seconds, and who finds the note of another host watches it for a while before it takes over. No clocks are compared.
What neither keeps apart are two processes on different nodes of such a file system that start within the same moment.

Knows files and processes. Does not know what is done in the folder.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from psr.errors import PSRError
from psr.files.whole import refused

BEAT, PATIENCE, POLL = 5.0, 20.0, 1.0
"""Seconds between two signs of life; without one a holder on another host counts as gone; between two tries."""
HELD = "PSR_HOLDS"
"""Environment variable with the folders that this process, or the one that started it, holds."""
CANNOT_LOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class HeldError(PSRError, RuntimeError):
    """Another process works in the folder; the message says which."""


@contextlib.contextmanager
def hold(folder: str | Path, wait: bool = False) -> Iterator[tuple[int, ...]]:
    """Keep other processes out of `folder` as long as the block runs; those that hold it already are let through.

    Yields the file descriptors that a process has to inherit to have a share in the lock.

    Raises:
        HeldError: another process holds it, and we are not to `wait`.
        StorageError: the folder cannot be written to.
    """
    folder = Path(folder).resolve()
    held = os.environ.get(HELD, "").split(os.pathsep)
    if str(folder) in held:
        yield ()
        return
    number = _taken(folder, wait)
    ended = threading.Event()
    os.ftruncate(number, 0)  # what a holder left that was killed
    note = _note()
    _sign(number, note, 0)
    beating = threading.Thread(target=_beat, args=(number, note, ended), daemon=True)
    beating.start()
    os.environ[HELD] = os.pathsep.join([*filter(None, held), str(folder)])
    try:
        yield (number,)
    finally:
        os.environ[HELD] = os.pathsep.join(filter(None, held))
        ended.set()
        beating.join()
        os.ftruncate(number, 0)
        os.close(number)  # and no more: processes that have a share keep it until they end


def _taken(folder: Path, wait: bool) -> int:
    """The descriptor of the locked file."""
    path, told = folder / "lock", False
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise refused(path, error) from error
        if _free(number, path):
            return number
        os.close(number)
        if not wait:
            raise HeldError(
                f"{folder} is in use by {_holder(path)}: wait for its end, as `psr run --wait true` does, or take "
                "another folder"
            )
        if not told:
            print(f"psr: waiting for {_holder(path)}, which works in {folder}", file=sys.stderr)
            told = True
        time.sleep(POLL)


def _free(number: int, path: Path) -> bool:
    """Whether the lock is ours now."""
    shared = True
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in CANNOT_LOCK:
            raise refused(path, error) from error
        shared = False
    note = _read(path)
    elsewhere = note.get("host") != socket.gethostname()
    return not (note and (elsewhere or not shared) and _beats(path))


def _beats(path: Path) -> bool:
    """Whether the holder gives a sign of life before our patience ends."""
    first, end = _read(path), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(min(POLL, PATIENCE / 4))
        now = _read(path)
        if now != first:
            return bool(now)  # an empty note is that of a holder who has just left
    return False


def _note() -> dict[str, Any]:
    """What others are told of this process."""
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": " ".join(sys.argv)[:500],
    }


def _beat(number: int, note: dict[str, Any], ended: threading.Event) -> None:
    """Sign again and again."""
    beat = 0
    while not ended.wait(BEAT):
        _sign(number, note, beat := beat + 1)


def _sign(number: int, note: dict[str, Any], beat: int) -> None:
    """Write the note with this number, in place and as long as before: other nodes look into the same file."""
    with contextlib.suppress(OSError):  # no room for a sign of life is no reason to die
        os.pwrite(number, json.dumps({**note, "beat": f"{beat:012d}"}).encode() + b"\n", 0)
        os.fsync(number)


def _read(path: Path) -> dict[str, Any]:
    """The note of who holds the lock; empty where there is none, or while it is being written."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _holder(path: Path) -> str:
    note = _read(path)
    told = "process {process} on {host}, since {since} ({command})"
    return told.format_map(note) if note.keys() >= {"process", "host", "since", "command"} else "another process"
