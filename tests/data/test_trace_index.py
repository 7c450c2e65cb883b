"""The index of a journal: it spares reading the traces, and never speaks for a line that is another by now."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from psr.data.trace_index import index_of, whole_lines
from psr.data.traces import TraceJournal, merge_parts, part_of
from psr.files.jsonl import DataError
from psr.records import Problem
from tests.data.test_pair_table import random_searches

SEARCHES = random_searches(5, seed=3)
NAMES = [one.problem.id for one in SEARCHES]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of four problems, written long ago."""
    path = tmp_path / "iterations" / "02" / "traces.jsonl"
    written(path, SEARCHES[:4])
    return path


def written(path: Path, searches: list) -> None:
    journal = TraceJournal(path, "M1")
    for one in searches:
        journal.append(one)
    settle(path)


def settle(path: Path) -> None:
    """As if everything had happened an hour ago: the time of the last change is that which the index noted last."""
    index = index_of(path)
    hour = path.stat().st_mtime_ns - 3600 * 10**9
    noted = [line.split(b'"place": [', 1) for line in index.read_bytes().splitlines()]
    lines = []
    for start, rest in noted:
        place, rest = rest.split(b"]", 1)
        *numbers, _ = place.split(b", ")
        lines.append(start + b'"place": [' + b", ".join([*numbers, str(hour).encode()]) + b"]" + rest + b"\n")
    index.write_bytes(b"".join(lines))
    os.utime(path, ns=(hour, hour))


def pairs_of(path: Path) -> list[tuple[str, list, list]]:
    journal = TraceJournal(path, "M1")
    return [(one.name, one.pairs, one.tokens.tolist()) for one in journal.indexed(journal.trajectories)]


def keep_time(path: Path, data: bytes) -> None:
    """Other contents that bear the time of the ones before."""
    now = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(now.st_atime_ns, now.st_mtime_ns))


def test_lines_that_the_index_knows_are_not_read(path: Path):
    before, data = pairs_of(path), path.read_bytes()
    keep_time(path, b"x" * (len(data) - 1) + b"\n")
    assert pairs_of(path) == before


def test_an_index_that_is_lost_or_of_another_form_is_made_again(path: Path):
    before, index = pairs_of(path), index_of(path)
    whole = index.read_bytes()
    for contents in (None, b"", b"\xff\n", whole.replace(b'"form": "1', b'"form": "0'), whole[:-20], whole[20:]):
        index.unlink() if contents is None else index.write_bytes(contents)
        assert pairs_of(path) == before
        assert len(index.read_bytes().splitlines()) == 4 and pairs_of(path) == before


@pytest.mark.parametrize("settled", [True, False])
def test_a_line_that_was_edited_in_place_is_read_again(path: Path, settled: bool):
    """Of the same length: neither sizes nor places tell. Where it was edited just now, nor may the time."""
    data = path.read_bytes()
    second = data.split(b"\n")[1]
    assert b'"event": "kept"' in second
    changed = data.replace(second, second.replace(b'"event": "kept"', b'"event": "tied"'))
    if settled:
        path.write_bytes(changed)
        hour = path.stat().st_mtime_ns - 1800 * 10**9
        os.utime(path, ns=(hour, hour))
    else:
        path.unlink()
        index_of(path).unlink()
        journal = TraceJournal(path, "M1")
        for one in SEARCHES[:4]:
            journal.append(one)
        keep_time(path, changed)
    found = {name: pairs for name, pairs, _ in pairs_of(path)}
    assert found[NAMES[1]] == []
    index_of(path).unlink()
    assert {name: pairs for name, pairs, _ in pairs_of(path)} == found


@pytest.mark.parametrize("number", range(4))
def test_a_line_that_was_deleted_is_searched_again(path: Path, number: int):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
    before = [name for i, name in enumerate(NAMES[:4]) if i != number]
    assert [name for name, *_ in pairs_of(path)] == before
    assert [name for name, *_ in pairs_of(path)] == before


def test_a_kill_between_the_traces_and_the_index_costs_nothing(path: Path):
    before, index = pairs_of(path), index_of(path)
    *lines, last = index.read_bytes().splitlines(keepends=True)
    for left in (b"", last[:30], last[:-1]):
        index.write_bytes(b"".join(lines) + left)
        assert pairs_of(path) == before


def test_an_id_that_reads_like_the_index_is_an_id(tmp_path: Path):
    """Only the beginning of a line is read to know what is there."""
    path, name = tmp_path / "traces.jsonl", '1", "tally": [], "pairs": [ü\\'
    one = replace(SEARCHES[0], problem=Problem(name, "1+1"))
    written(path, [one, *SEARCHES[1:3]])
    assert list(TraceJournal(path, "M1").trajectories) == [name, *NAMES[1:3]]
    assert [known.name for _, known in whole_lines(index_of(path))] == [name, *NAMES[1:3]]


def test_a_line_of_the_index_that_is_damaged_later_on_is_named(path: Path):
    data = index_of(path).read_bytes()
    index_of(path).write_bytes(data.replace(b'"pairs": [', b'"pairs": {', 1))
    with pytest.raises(DataError, match=r"traces\.index: the line at byte 0 is damaged: delete the file"):
        pairs_of(path)


def test_a_torn_line_is_cut_off_with_its_index(path: Path):
    before = pairs_of(path)
    path.write_bytes(path.read_bytes()[:-5])
    journal = TraceJournal(path, "M1")
    assert list(journal.trajectories) == NAMES[:3] and len(index_of(path).read_bytes().splitlines()) == 3
    journal.append(SEARCHES[3])
    assert pairs_of(path) == before


def test_an_index_without_its_traces_counts_for_nothing(path: Path):
    path.unlink()
    assert list(TraceJournal(path, "M1").trajectories) == []
    assert not index_of(path).exists()


def test_lines_of_other_weights_are_refused_by_the_index(path: Path):
    with pytest.raises(DataError, match=r"traces\.jsonl, line 1: searched by weights 'M1', not 'M2'"):
        TraceJournal(path, "M2")


def test_parts_are_merged_with_their_index_and_none_twice(path: Path):
    """Problem 3 is in two files: an earlier merge was killed before it removed the part."""
    written(part_of(path, 1), SEARCHES[3:])
    journal = TraceJournal(path, "M1")
    merge_parts(journal)
    assert list(journal.trajectories) == NAMES and dict(journal.trajectories) == dict(zip(NAMES, SEARCHES, strict=True))
    assert sorted(file.name for file in path.parent.iterdir()) == ["traces.index", "traces.jsonl"]
    merged = [(one.name, one.pairs, one.tokens.tolist()) for one in journal.indexed(NAMES)]
    assert pairs_of(path) == merged
    index_of(path).unlink()
    assert pairs_of(path) == merged


def test_another_rank_reads_what_the_first_has_opened(path: Path):
    first, other = TraceJournal(path, "M1"), TraceJournal(path, "M1", checked=True)
    assert dict(other.trajectories) == dict(first.trajectories)
    assert [one.name for one in other.indexed(NAMES[1:3])] == NAMES[1:3]
