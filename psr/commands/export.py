"""`psr data export`: psr's data in the formats of other trainers."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from psr.curation.export import messages, preference_of_pair, preferences_of_trajectory
from psr.errors import NoPairsError
from psr.files.kinds import Pair, Worked
from psr.files.rows import each_row
from psr.files.tables import write_table
from psr.files.trajectories import each_trajectory
from psr.prompts.templates import Prompts

Kind = Literal["traces", "eft", "ift"]


def export(source: Path, out: Path, kind: Kind = "traces", prompts: Prompts | None = None) -> None:
    """Write step pairs as `prompt`, `chosen`, `rejected` (TRL's preference format), or solutions as `messages`.

    Args:
        source: traces.jsonl of an iteration, or EFT or IFT rows.
        out: .jsonl or .parquet to write.
        kind: what the source holds; traces and eft become step pairs, ift becomes messages.
        prompts: templates and step format, those that the traces were searched with.
    """
    count = 0

    def counted() -> Iterator[Mapping[str, Any]]:
        nonlocal count
        for row in rows_of(source, kind, prompts or Prompts()):
            count += 1
            yield row
        if not count:  # in time: the file takes its name only when all is written
            raise NoPairsError(f"{source} holds no step with a winner: nothing to export")

    write_table(out, counted())
    print(f"{out}: {count} rows")


def rows_of(source: Path, kind: Kind, prompts: Prompts) -> Iterator[Mapping[str, Any]]:
    """The rows to write, made as they are written: a source may be larger than the memory."""
    if kind == "ift":
        yield from (messages(row, prompts) for row in each_row(source, Worked))
    elif kind == "eft":
        yield from (preference_of_pair(row, prompts) for row in each_row(source, Pair))
    else:
        for one in each_trajectory(source):
            yield from preferences_of_trajectory(one, prompts)
