"""The journal of an iteration: one line per finished problem, appended and flushed, so that a kill loses nothing else.

Knows records and files. Does not know how a problem is searched.
"""

import json
import os
from pathlib import Path

from psr.files.jsonl import DataError
from psr.files.trajectories import trajectory_of
from psr.records import Trajectory, to_json


class TraceJournal:
    """Appends trajectories to a JSONL file and reads back what an earlier process left there.

    A last line that a kill tore in half is cut off when the journal is opened. All lines must come from one version of
    the weights.

    Raises:
        DataError: a line in the middle is broken, or the lines come from other weights than `weights_version`.
    """

    def __init__(self, path: str | Path, weights_version: str) -> None:
        self.path, self.weights_version = Path(path), weights_version
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.trajectories: dict[str, Trajectory] = {}
        if self.path.is_file():
            self._read()

    def _read(self) -> None:
        whole = 0
        for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True), start=1):
            if not line.endswith(b"\n"):
                os.truncate(self.path, whole)
                return
            trajectory = trajectory_of(f"{self.path}, line {number}", line)
            if trajectory.weights_version != self.weights_version:
                raise DataError(
                    f"{self.path}, line {number}: searched by weights {trajectory.weights_version!r}, "
                    f"not {self.weights_version!r}; use a new run directory"
                )
            if (name := trajectory.problem.id) in self.trajectories:
                raise DataError(f"{self.path}, line {number}: the problem {name!r} once more; delete one of the lines")
            self.trajectories[trajectory.problem.id] = trajectory
            whole += len(line)

    def append(self, trajectory: Trajectory) -> None:
        """Write one line; when this returns it survives the end of this process."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(to_json(trajectory), ensure_ascii=False) + "\n")
        self.trajectories[trajectory.problem.id] = trajectory


def part_of(path: Path, rank: int) -> Path:
    """Where a rank notes what it has searched of an iteration; the first rank writes to the journal itself."""
    return path if rank == 0 else path.with_name(f"{path.stem}.rank-{rank}{path.suffix}")


def merge_parts(path: Path, weights_version: str) -> TraceJournal:
    """The journal with all that other ranks have noted, also before a kill; their parts are gone then."""
    journal = TraceJournal(path, weights_version)
    for part in sorted(path.parent.glob(f"{path.stem}.rank-*{path.suffix}")):
        for trajectory in TraceJournal(part, weights_version).trajectories.values():
            if trajectory.problem.id not in journal.trajectories:
                journal.append(trajectory)
        part.unlink()
    return journal
