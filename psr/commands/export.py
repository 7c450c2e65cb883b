"""`psr data export`: psr's data in the formats of other trainers."""

from pathlib import Path
from typing import Literal

from psr.curation.export import messages, preference_of_pair, preferences_of_trajectory
from psr.errors import NoPairsError
from psr.files.kinds import Pair, Worked
from psr.files.rows import read_rows
from psr.files.tables import write_table
from psr.files.trajectories import read_trajectories
from psr.prompts.templates import Prompts


def export(
    source: Path, out: Path, kind: Literal["traces", "eft", "ift"] = "traces", prompts: Prompts | None = None
) -> None:
    """Write step pairs as `prompt`, `chosen`, `rejected` (TRL's preference format), or solutions as `messages`.

    Args:
        source: traces.jsonl of an iteration, or EFT or IFT rows.
        out: .jsonl or .parquet to write.
        kind: what the source holds; traces and eft become step pairs, ift becomes messages.
        prompts: templates and step format, those that the traces were searched with.
    """
    prompts = prompts or Prompts()
    if kind == "ift":
        rows = [messages(row, prompts) for row in read_rows(source, Worked)]
    elif kind == "eft":
        rows = [preference_of_pair(row, prompts) for row in read_rows(source, Pair)]
    else:
        rows = [row for one in read_trajectories(source) for row in preferences_of_trajectory(one, prompts)]
    if not rows:
        raise NoPairsError(f"{source} holds no step with a winner: nothing to export")
    write_table(out, rows)
    print(f"{out}: {len(rows)} rows")
