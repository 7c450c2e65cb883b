"""The index of a journal: beside every line of the traces a short one, with all that training and statistics need.

    traces.jsonl    {"problem": ..., "nodes": ...}    250 kB a problem at 7B: all candidates, all that judges said
    traces.index    {"id": ..., "place": ..., ...}      9 kB: where that line is, counts, and the tokens of its pairs

It is made of the traces and can always be made again. It counts for a line only while that is the line it was made of:
while nothing but the journal has written to the traces, which the time of their last change tells, or else a checksum.

Knows records and files. Does not know ranks, or how pairs are laid out.
"""

import base64
import json
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from psr.files.whole import append_line
from psr.records import Trajectory, step_pairs
from psr.search.pairs import WEIGHTS
from psr.search.statistics import Tally, tally

FORM = f"1 {' '.join(WEIGHTS)}"
"""Of the lines of an index. One of another form is made again."""
AFTER_HEAD, END = b', "tally": ', b'"}\n'
SETTLED = 2.0
"""Seconds after which a change has a time of its own: file systems count time in steps."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line of the traces is, in bytes; the checksum of the line, and when the file was then last changed."""

    start: int
    stop: int
    checksum: int
    changed: int


@dataclass(frozen=True)
class IndexedPair:
    """A step pair as lengths: the prompt is the first `start` tokens of the chain, `chosen` tokens of it follow."""

    depth: int
    start: int
    chosen: int
    rejected: int
    margin: int
    logprob: float | None
    weights: dict[str, float]


@dataclass(frozen=True)
class Indexed:
    """What the index holds of a trajectory.

    `tokens` are the chain of chosen steps, from the prompt to the last pair's, and then the rejected step of each pair.
    """

    name: str
    version: str
    place: Place
    tally: Tally
    pairs: list[IndexedPair]
    tokens: np.ndarray


def index_of(path: Path) -> Path:
    """The index of the journal `path`."""
    return path.with_suffix(".index")


def indexed(trajectory: Trajectory, place: Place) -> Indexed:
    """What the index notes of a trajectory: every pair that has a margin at all, for any settings to choose from."""
    pairs = step_pairs(trajectory)
    nodes = [node for node in trajectory.kept if node.margin >= 1]
    chain = [*pairs[-1].prompt_ids, *pairs[-1].chosen_ids] if pairs else []
    tokens = np.array([*chain, *(token for pair in pairs for token in pair.rejected_ids)], dtype=np.int32)
    noted = [
        IndexedPair(
            pair.depth,
            len(pair.prompt_ids),
            len(pair.chosen_ids),
            len(pair.rejected_ids),
            pair.margin,
            pair.chosen_logprob,
            {kind: weight(node) for kind, weight in WEIGHTS.items()},
        )
        for pair, node in zip(pairs, nodes, strict=True)
    ]
    return Indexed(trajectory.problem.id, trajectory.weights_version, place, tally(trajectory), noted, tokens)


def append_indexed(path: Path, one: Indexed) -> None:
    """Append a line to the index `path`."""
    row = {"form": FORM, "id": one.name, "version": one.version, "place": list(asdict(one.place).values())}
    row |= {"tally": one.tally, "pairs": [list(asdict(pair).values()) for pair in one.pairs]}
    tokens = base64.b64encode(one.tokens.astype("<i4").tobytes()).decode()
    append_line(path, json.dumps({**row, "tokens": tokens}, ensure_ascii=False))


def read_indexed(line: bytes) -> Indexed:
    """The inverse of `append_indexed`. Raises ValueError, KeyError or TypeError on anything else."""
    row: dict[str, Any] = json.loads(line)
    if row["form"] != FORM:
        raise ValueError(row["form"])
    tokens = np.frombuffer(base64.b64decode(row["tokens"]), dtype="<i4")
    pairs = [IndexedPair(*pair) for pair in row["pairs"]]
    return Indexed(row["id"], row["version"], Place(*row["place"]), Tally(*row["tally"]), pairs, tokens)


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a line of the index: of what search it is."""

    name: str
    version: str
    place: Place


def read_head(line: bytes) -> Head:
    """As `read_indexed`, and raises the same, of the beginning of a line alone, which is a small part of it."""
    # No id holds what divides them: within a text JSON puts a backslash before a quotation mark.
    head, divides, _ = line.partition(AFTER_HEAD)
    if not divides or not line.endswith(END):
        raise ValueError("a torn line")
    row = json.loads(head + b"}")
    if row["form"] != FORM:
        raise ValueError(row["form"])
    return Head(row["id"], row["version"], Place(*row["place"]))


def whole_lines(path: Path) -> Iterator[tuple[int, Head]]:
    """The lines of an index with their offsets, up to the first that is torn, of another form or out of place."""
    if not path.is_file():
        return
    offset = end = 0
    with path.open("rb") as file:
        for line in file:
            try:
                one = read_head(line)
            except (ValueError, KeyError, TypeError):
                return
            if one.place.start != end:
                return
            yield offset, one
            offset, end = offset + len(line), one.place.stop


def sound(path: Path, places: list[Place]) -> int:
    """How many of the first lines of the traces `path` are those that these places were noted of."""
    if not places:
        return 0
    noted, file_now = places[-1], path.stat()
    settled = time.time() - file_now.st_mtime > SETTLED  # a change just now could bear the same time as the last line
    if settled and (file_now.st_size, file_now.st_mtime_ns) == (noted.stop, noted.changed):
        return len(places)
    with path.open("rb") as file:
        for number, place in enumerate(places):
            line = file.read(place.stop - place.start)
            if len(line) < place.stop - place.start or zlib.crc32(line) != place.checksum:
                return number
    return len(places)
