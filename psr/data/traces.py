"""The journal of an iteration: one line per finished problem, so that a kill loses only the searches under way.

Knows records and files. Does not know how a problem is searched.
"""

import json
import os
from pathlib import Path

from psr.files.jsonl import DataError, append_row
from psr.records import Trajectory, to_json, trajectory_from_json


class TraceJournal:
    """Appends trajectories to a JSONL file and reads back what an earlier process wrote.

    A last line that a kill left incomplete is cut off when the journal is opened. All lines must come from one version
    of the weights.

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
        whole = 0  # bytes of complete lines
        for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True), start=1):
            if not line.endswith(b"\n"):  # only the last one can be: its problem is searched again
                os.truncate(self.path, whole)
                return
            try:
                trajectory = trajectory_from_json(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{self.path}, line {number}: not a trajectory ({error}); delete the line") from None
            # Pairs of another policy would still train, only not on what M(n) itself prefers.
            if trajectory.weights_version != self.weights_version:
                raise DataError(
                    f"{self.path}, line {number}: searched by weights {trajectory.weights_version!r}, "
                    f"not {self.weights_version!r}; use a new run directory"
                )
            self.trajectories[trajectory.problem.id] = trajectory
            whole += len(line)

    def append(self, trajectory: Trajectory) -> None:
        """Write one line; once this returns, it survives the end of this process."""
        append_row(self.path, to_json(trajectory))
        self.trajectories[trajectory.problem.id] = trajectory


def part_of(path: Path, rank: int) -> Path:
    """The file to which a rank appends its trajectories; rank 0 writes to the journal itself."""
    # A file per rank: appends from several nodes to one file on a shared file system may overwrite each other.
    return path if rank == 0 else path.with_name(f"{path.stem}.rank-{rank}{path.suffix}")


def searched(path: Path) -> int:
    """How many problems the ranks have noted by now, in the journal and in their parts."""
    files = [path, *path.parent.glob(f"{path.stem}.rank-*{path.suffix}")]
    return sum(file.read_bytes().count(b"\n") for file in files if file.is_file())


def merge_parts(path: Path, weights_version: str) -> TraceJournal:
    """The journal with the trajectories of all ranks, those from before a kill included; removes the ranks' files."""
    journal = TraceJournal(path, weights_version)
    for part in sorted(path.parent.glob(f"{path.stem}.rank-*{path.suffix}")):
        for trajectory in TraceJournal(part, weights_version).trajectories.values():
            # Already there if an earlier merge was killed between its last append and the unlink.
            if trajectory.problem.id not in journal.trajectories:
                journal.append(trajectory)
        part.unlink()
    return journal
