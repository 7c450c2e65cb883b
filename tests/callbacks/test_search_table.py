"""The table of sampled steps reads the searches that it shows, and no other."""

import random
from pathlib import Path

from callbacks.search_table import drawn_rows, step_rows
from psr.data.traces import TraceJournal
from tests.data.test_pair_table import random_searches


def test_steps_are_drawn_as_out_of_all_steps_in_memory(tmp_path: Path):
    searches = random_searches(20, seed=4)
    journal = TraceJournal(tmp_path / "traces.jsonl", "M1")
    for one in searches:
        journal.append(one)
    steps = [(one, node) for one in searches for node in one.nodes]
    for count in (1, 7, 1000):
        drawn = random.Random(2).sample(steps, min(count, len(steps)))
        expected = [row for one, node in drawn for row in step_rows(one, node)]
        assert drawn_rows(journal, count, random.Random(2)) == expected
    assert drawn_rows(TraceJournal(tmp_path / "empty.jsonl", "M1"), 7, random.Random(2)) == []
