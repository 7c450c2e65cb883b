"""`psr data export`: psr's data in the formats of other trainers."""

from pathlib import Path
from typing import Any, Literal

from psr.curation.export import messages, preference_of_pair, preferences_of_trajectory
from psr.errors import NoPairsError
from psr.files.jsonl import DataError
from psr.files.tables import read_table, write_table
from psr.prompts.templates import Prompts
from psr.records import trajectory_from_json

TRAJECTORY = ["problem", "prompt_ids", "nodes", "finished", "weights_version", "seconds"]


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
        rows = [messages(row, prompts) for row in read_table(source, ["problem", "solution"], ["id", "answer"])]
    elif kind == "eft":
        fields = ["problem", "previous_steps", "chosen", "rejected"]
        rows = [preference_of_pair(row, prompts) for row in read_table(source, fields, ["id"])]
    else:
        rows = [pair for row in read_table(source, TRAJECTORY) for pair in _pairs(source, row, prompts)]
    if not rows:
        raise NoPairsError(f"{source} holds no step with a winner: nothing to export")
    write_table(out, rows)
    print(f"{out}: {len(rows)} rows")


def _pairs(source: Path, row: dict[str, Any], prompts: Prompts) -> list[dict[str, Any]]:
    try:
        return preferences_of_trajectory(trajectory_from_json(row), prompts)
    except (KeyError, TypeError) as error:
        raise DataError(f"{source}: a row is no trajectory ({error}); give traces.jsonl, or another --kind") from None
