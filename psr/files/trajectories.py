"""Files of trajectories, one a line. Knows lines and records; not where a run keeps them, or how they are written."""

from collections.abc import Iterator
from pathlib import Path

from psr.files.jsonl import DataError, located_lines
from psr.records import Trajectory, trajectory_from_json


def each_trajectory(path: str | Path) -> Iterator[Trajectory]:
    """Every trajectory of a traces.jsonl, one at a time. Raises DataError, naming the line, on what is none, and on an
    empty file."""
    empty = True
    for where, line in located_lines(path):
        yield trajectory_of(where, line)
        empty = False
    if empty:
        raise DataError(f"{path}: the file holds no rows")


def trajectory_of(where: str, line: str | bytes) -> Trajectory:
    """The trajectory of a line. Raises DataError, which begins with `where`."""
    try:
        return trajectory_from_json(line)
    except ValueError as error:
        raise DataError(f"{where}: not a trajectory ({error}); delete the line") from None
