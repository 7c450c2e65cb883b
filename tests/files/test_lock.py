"""The lock of a folder: who holds it is told, and whatever ends the holder frees it."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from psr.files import lock
from psr.files.lock import HeldError, hold
from psr.files.whole import StorageError
from tests.recipes.tiny_run import environment

HOLDER = """
import subprocess, sys, time
from psr.files.lock import hold
with hold(sys.argv[1]) as share:
    if len(sys.argv) > 2:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=share)
        print(child.pid, flush=True)
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path, *more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *more], env=environment(), stdout=subprocess.PIPE, text=True
    )
    return process


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_process_hears_who_holds_the_folder_and_a_kill_frees_it(tmp_path: Path):
    process = holder(tmp_path)
    try:
        assert first_line(process) == "held"
        told = rf"{tmp_path} is in use by process {process.pid} on \S+, since 20\d\d-.*\(-c {tmp_path}\): wait"
        with pytest.raises(HeldError, match=told), hold(tmp_path):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with hold(tmp_path):
        pass
    assert (tmp_path / "lock").read_text() == ""


def test_processes_that_the_holder_started_keep_the_folder_when_it_is_killed(tmp_path: Path):
    process = holder(tmp_path, "with a child")
    child = int(first_line(process))
    try:
        assert first_line(process) == "held"
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(HeldError), hold(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
    with hold(tmp_path, wait=True):
        pass


def test_waiting_says_for_whom_and_ends_when_the_folder_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(lock, "POLL", 0.05)
    process = holder(tmp_path)
    assert first_line(process) == "held"
    time.sleep(0.1)
    threading.Timer(0.5, process.kill).start()
    started = time.monotonic()
    with hold(tmp_path, wait=True):
        assert time.monotonic() - started > 0.3
    assert f"waiting for process {process.pid} on" in capsys.readouterr().err
    process.wait()


def test_what_a_holder_calls_is_let_through(tmp_path: Path):
    with hold(tmp_path) as share:
        assert len(share) == 1 and os.environ[lock.HELD].endswith(str(tmp_path))
        with hold(tmp_path / "." / "x" / ".."):
            pass
        inner = subprocess.run(
            [sys.executable, "-c", f"from psr.files.lock import hold\nwith hold({str(tmp_path)!r}): pass"],
            env=environment(),
        )
        assert inner.returncode == 0
    assert str(tmp_path) not in os.environ[lock.HELD]


def note(path: Path, beat: int) -> None:
    told: dict[str, Any] = {"host": "elsewhere", "process": 7, "since": "today", "command": "psr run", "beat": beat}
    path.write_text(json.dumps(told))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"BEAT": 0.05, "PATIENCE": 0.6, "POLL": 0.05}.items():
        monkeypatch.setattr(lock, name, seconds)


@pytest.mark.usefixtures("quick")
def test_where_nodes_do_not_share_the_systems_lock_a_sign_of_life_keeps_others_out(tmp_path: Path):
    """The other node holds a lock that we do not see: we only see its note change."""
    alive = threading.Event()

    def live() -> None:
        beat = 0
        while not alive.wait(0.05):
            note(tmp_path / "lock", beat := beat + 1)

    note(tmp_path / "lock", 0)
    other = threading.Thread(target=live)
    other.start()
    try:
        with pytest.raises(HeldError, match="process 7 on elsewhere, since today"), hold(tmp_path):
            pass
    finally:
        alive.set()
        other.join()
    with hold(tmp_path):  # and no sign of life for as long as our patience lasts
        assert json.loads((tmp_path / "lock").read_text())["process"] == os.getpid()


@pytest.mark.usefixtures("quick")
def test_a_file_system_that_cannot_lock_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold(tmp_path):
        monkeypatch.delenv(lock.HELD)
        with pytest.raises(HeldError, match=f"process {os.getpid()} on"), hold(tmp_path):
            pass
    with hold(tmp_path):
        pass


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file/lock could not be written"), hold(tmp_path / "file"):
        pass
