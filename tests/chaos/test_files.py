"""Ten faults of the file system: each is told in one line; with it mended the run ends as an undisturbed one.

A full disk is a real one: a small tmpfs under the folder that the writer writes to, in a mount namespace of its own.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from psr.files.jsonl import read_json, write_json
from tests.chaos.runs import assert_same, before_the_loop, command, recipe, searched, start, stop, surroundings
from tests.recipes.tiny_run import LIMIT, TINY, finished_run

pytestmark = pytest.mark.slow

NAMESPACE = ["unshare", "--map-root-user", "--mount"]
FULL = """
mkdir -p "$PLACE" && cp -a "$PLACE" "$KEEP"
mount -t tmpfs -o size=64m tmpfs "$PLACE" && cp -a "$KEEP/." "$PLACE/"
mount -o remount,size=$(($(df --output=used -B1 "$PLACE" | tail -1) + ROOM)) "$PLACE"
"$@" 2> "$SAID"; echo $? > "$SAID.code"
mount -o remount,size=64m "$PLACE"
"""
READ_ONLY = """
mount --bind "$PLACE" "$PLACE" && mount -o remount,ro,bind "$PLACE"
"$@" 2> "$SAID"; echo $? > "$SAID.code"
mount -o remount,rw,bind "$PLACE"
"""
AGAIN = '"$@" 2> "$SAID.again"; echo $? > "$SAID.again.code"; cp -a "$RUN" "$RUN.end"'
ROOM = {"iterations": 12_288, "self_rewarding/checkpoints": 40_960, "models": 40_960, ".": 8_192}
WRITERS = {
    "traces": ("iterations", r"iterations/02/traces.jsonl"),
    "checkpoint": ("self_rewarding/checkpoints", ".ckpt"),
    "model": ("models", "models/M2"),
    "state": (".", "stages.json"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return before_the_loop(tmp_path / "run")


def needs_namespaces() -> None:
    if subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode:
        pytest.skip("no right to make a mount namespace")


def in_namespace(folder: Path, place: str, script: str) -> tuple[str, Path]:
    """What `psr run` says while `place` is spoilt, and the run directory that it finishes when it is mended."""
    said = folder.parent / "said.txt"
    names = {"PLACE": folder / place, "KEEP": folder.parent / "keep", "SAID": said, "RUN": folder}
    variables = {name: str(path) for name, path in names.items()} | {"ROOM": str(ROOM.get(place, 0))}
    run = ["bash", "-c", script + AGAIN, "bash", *command(TINY, folder)]
    done = subprocess.run(
        [*NAMESPACE, *run], env={**surroundings(), **variables}, capture_output=True, timeout=2 * LIMIT
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert Path(f"{said}.code").read_text() == "1\n"
    assert Path(f"{said}.again.code").read_text() == "0\n", Path(f"{said}.again").read_text()[-3000:]
    return said.read_text(), Path(f"{folder}.end")


def last_line(said: str) -> str:
    """The message that the process ended with; it is no traceback."""
    assert "Traceback" not in said, said[-3000:]
    return said.strip().splitlines()[-1]


@pytest.mark.parametrize("writer", WRITERS)
def test_no_room(folder: Path, writer: str):
    needs_namespaces()
    place, file = WRITERS[writer]
    said, end = in_namespace(folder, place, FULL)
    line = last_line(said)
    assert line.startswith("psr: ") and file in line, line
    assert "could not be written" in line and "No space left on device" in line, line
    assert_same(end, finished_run().folder)


def test_no_room_for_the_figures_of_a_search(folder: Path):
    """The traces are complete by then, and there is not one page more."""
    needs_namespaces()
    shutil.copytree(finished_run().folder / "iterations" / "02", folder / "iterations" / "02")
    for name in ("search.json", "reference.safetensors"):
        (folder / "iterations" / "02" / name).unlink()
    said, end = in_namespace(folder, "iterations", FULL.replace("+ ROOM", "+ 0"))
    assert "iterations/02/search.json could not be written: No space left on device" in last_line(said)
    assert_same(end, finished_run().folder)


def test_read_only(folder: Path):
    needs_namespaces()
    said, end = in_namespace(folder, ".", READ_ONLY)
    assert "could not be written: Read-only file system" in last_line(said)
    assert_same(end, finished_run().folder)


@pytest.fixture
def slowly(tmp_path: Path) -> Path:
    """The recipe, searching one problem after the other."""
    return recipe(tmp_path / "tiny", "--data.init_args.concurrency 1")


@pytest.fixture
def begin(slowly: Path, folder: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    begun = []

    def one() -> subprocess.Popen[str]:
        begun.append(start(slowly, folder))
        return begun[-1]

    yield one
    for process in begun:
        stop(process)


def wait_for(process: subprocess.Popen[str], there: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not there():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[1][-3000:]
        time.sleep(0.005)


def finish(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, said[-3000:]
    return said


def test_a_folder_is_deleted_under_a_running_search(folder: Path, begin: Callable[[], subprocess.Popen[str]]):
    process = begin()
    wait_for(process, lambda: searched(folder, 2) >= 2)
    shutil.rmtree(folder / "iterations")
    _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert "iterations/02/traces.jsonl has lost" in last_line(said)
    finish(begin())
    assert_same(folder, finished_run().folder)


def test_torn_files(folder: Path, begin: Callable[[], subprocess.Popen[str]]):
    for name in ("run.json", "stages.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        process = begin()
        _, said = process.communicate(timeout=LIMIT)
        assert process.returncode == 1
        assert f"{name} is torn" in last_line(said)
        (folder / name).write_bytes(whole)
    finish(begin())
    for path in (folder / "self_rewarding" / "checkpoints").glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:-1000])
    shutil.rmtree(folder / "models" / "M3")
    records = read_json(folder / "stages.json")
    write_json(
        folder / "stages.json", {name: one for name, one in records.items() if name not in ("self_rewarding", "test")}
    )
    said = finish(begin())
    assert "last.ckpt cannot be read" in said and "last.ckpt.unreadable" in said
    assert_same(folder, finished_run().folder)


def test_the_clock_jumps(folder: Path, begin: Callable[[], subprocess.Popen[str]]):
    """Between two starts, by decades: the older checkpoint seems the newer one."""
    process = begin()
    wait_for(process, lambda: searched(folder, 3) >= 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    checkpoints = folder / "self_rewarding" / "checkpoints"
    first = next(path for path in checkpoints.glob("*.ckpt") if path.name != "last.ckpt")
    torn = checkpoints / "last-stopped-1.ckpt"
    shutil.copy(first, torn)
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (4e9, 4e9) if path == torn else (0, 0))
    torn.write_bytes(torn.read_bytes()[:-1])
    finish(begin())
    assert_same(folder, finished_run().folder)


def test_a_second_start(folder: Path, begin: Callable[[], subprocess.Popen[str]]):
    first = begin()
    wait_for(first, lambda: searched(folder, 2) >= 2)
    second = begin()
    _, said = second.communicate(timeout=LIMIT)
    assert second.returncode == 1
    assert f"{folder} is in use by process {first.pid} on " in last_line(said)
    finish(first)
    assert_same(folder, finished_run().folder)
