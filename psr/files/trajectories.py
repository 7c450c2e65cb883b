"""Files of trajectories, one a line. Knows lines and records; not where a run keeps them, or how they are written."""

from pathlib import Path

from psr.files.jsonl import DataError, located_lines
from psr.records import Trajectory, trajectory_from_json


def read_trajectories(path: str | Path) -> list[Trajectory]:
    """Every trajectory of a traces.jsonl. Raises DataError, naming the line, on what is none, and on an empty file."""
    found = [trajectory_of(where, line) for where, line in located_lines(path)]
    if not found:
        raise DataError(f"{path}: the file holds no rows")
    return found


def trajectory_of(where: str, line: str | bytes) -> Trajectory:
    """The trajectory of a line. Raises DataError, which begins with `where`."""
    try:
        return trajectory_from_json(line)
    except ValueError as error:
        raise DataError(f"{where}: not a trajectory ({error}); delete the line") from None
