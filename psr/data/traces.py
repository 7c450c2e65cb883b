"""The journal of an iteration: one line per finished problem, so that a kill loses only the searches under way.

What it holds in memory of a problem is where its line is; trajectories are read when they are asked for. Knows records,
files and the index beside the traces. Does not know how a problem is searched.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from psr.data.trace_index import Indexed, Place, append_indexed, index_of, indexed, read_indexed, sound, whole_lines
from psr.files.jsonl import DataError
from psr.files.trajectories import trajectory_of
from psr.files.whole import append_line
from psr.records import Trajectory, to_line
from psr.terminal.text import brief


class Trajectories(Mapping[str, Trajectory]):
    """The trajectories of a file by problem id, in the order of their lines, each read from there whenever it is asked
    for."""

    def __init__(self, path: Path) -> None:
        self.path, self.places = path, dict[str, tuple[int, int]]()

    def __getitem__(self, name: str) -> Trajectory:
        return trajectory_of(f"{self.path}, problem {brief(name)}", self.line(name))

    def line(self, name: str) -> bytes:
        start, stop = self.places[name]
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the line
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


class TraceJournal:
    """Appends trajectories to a JSONL file and finds again what an earlier process wrote.

    A last line that a kill left incomplete is cut off when the journal is opened. All lines must come from one version
    of the weights. Only lines that the index does not know are read.

    Raises:
        DataError: a line in the middle is broken, or the lines come from other weights than `weights_version`.
    """

    def __init__(self, path: str | Path, weights_version: str, checked: bool = False) -> None:
        """`checked`: another process has just opened the journal, and nothing has been written since."""
        self.path, self.weights_version = Path(path), weights_version
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.trajectories = Trajectories(self.path)
        self._index, self._offsets, self._end = index_of(self.path), dict[str, int](), 0
        if self.path.is_file():
            self._open(checked)
        elif not checked:
            self._index.unlink(missing_ok=True)

    def _open(self, checked: bool) -> None:
        known = [(offset, one.name, one.version, one.place) for offset, one in whole_lines(self._index)]
        count = len(known) if checked else sound(self.path, [place for *_, place in known])
        for number, (offset, name, version, place) in enumerate(known[:count], start=1):
            self._add(number, name, version, place, offset)
        if not checked:
            if self._index.is_file():
                os.truncate(self._index, known[count][0] if count < len(known) else self._index_size(known))
            self._read_on(count)

    def _index_size(self, known: list[tuple[int, str, str, Place]]) -> int:
        """The bytes of the whole lines of the index."""
        if not known:
            return 0
        with self._index.open("rb") as file:
            file.seek(known[-1][0])
            return known[-1][0] + len(file.readline())

    def _read_on(self, count: int) -> None:
        """Read and index what follows the first `count` lines."""
        with self.path.open("rb") as file:
            file.seek(self._end)
            for number, line in enumerate(file, start=count + 1):
                if not line.endswith(b"\n"):  # only the last one can be: its problem is searched again
                    os.truncate(self.path, self._end)
                    return
                self._note(number, trajectory_of(f"{self.path}, line {number}", line), line)

    def _note(self, number: int, trajectory: Trajectory, line: bytes) -> None:
        """Add line `number`, which is in the file, to the index."""
        place = Place(self._end, self._end + len(line), zlib.crc32(line), self.path.stat().st_mtime_ns)
        self._take(number, indexed(trajectory, place))

    def _take(self, number: int, one: Indexed) -> None:
        offset = self._index.stat().st_size if self._index.is_file() else 0
        self._add(number, one.name, one.version, one.place, offset)
        append_indexed(self._index, one)

    def _add(self, number: int, name: str, version: str, place: Place, offset: int) -> None:
        # Pairs of another policy would still train, only not on what M(n) itself prefers.
        if version != self.weights_version:
            raise DataError(
                f"{self.path}, line {number}: searched by weights {brief(version)}, "
                f"not {self.weights_version!r}; use a new run directory"
            )
        if name in self.trajectories:
            raise DataError(f"{self.path}, line {number}: the problem {brief(name)} once more; delete one of the lines")
        self.trajectories.places[name], self._offsets[name], self._end = (place.start, place.stop), offset, place.stop

    def append(self, trajectory: Trajectory) -> None:
        """Write one line; once this returns, it survives the end of this process."""
        line = to_line(trajectory)
        append_line(self.path, line)
        self._note(len(self.trajectories) + 1, trajectory, f"{line}\n".encode())

    def append_all(self, other: "TraceJournal") -> None:
        """Copy the lines of another journal whose problems are not here."""
        for one in other.indexed(name for name in other.trajectories if name not in self.trajectories):
            line = other.trajectories.line(one.name)
            append_line(self.path, line.decode().rstrip("\n"))
            place = Place(self._end, self._end + len(line), zlib.crc32(line), self.path.stat().st_mtime_ns)
            self._take(len(self.trajectories) + 1, replace(one, place=place))

    def indexed(self, names: Iterable[str]) -> Iterator[Indexed]:
        """What the index holds of these problems, one after the other. Raises KeyError where one is not there."""
        offsets = [self._offsets[name] for name in names]
        if offsets:
            with self._index.open("rb") as file:
                for offset in offsets:
                    file.seek(offset)
                    try:
                        yield read_indexed(file.readline())
                    except (ValueError, KeyError, TypeError):  # only its beginning was read when it was opened
                        raise DataError(
                            f"{self._index}: the line at byte {offset} is damaged: delete the file, it is made again"
                        ) from None


def part_of(path: Path, rank: int) -> Path:
    """The file to which a rank appends its trajectories; rank 0 writes to the journal itself."""
    # A file per rank: appends from several nodes to one file on a shared file system may overwrite each other.
    return path if rank == 0 else path.with_name(f"{path.stem}.rank-{rank}{path.suffix}")


def searched(path: Path) -> int:
    """How many problems the ranks have noted by now, in the journal and in their parts."""
    files = [path, *path.parent.glob(f"{path.stem}.rank-*{path.suffix}")]
    return sum(_lines(file) for file in files if file.is_file())


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def merge_parts(journal: TraceJournal) -> None:
    """Bring the trajectories of all ranks into the journal, those from before a kill too; removes the ranks' files."""
    path = journal.path
    for part in sorted(path.parent.glob(f"{path.stem}.rank-*{path.suffix}")):
        # Some are there already if an earlier merge was killed between its last append and the unlink.
        journal.append_all(TraceJournal(part, journal.weights_version))
        part.unlink()
        index_of(part).unlink(missing_ok=True)
