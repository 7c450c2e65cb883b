"""Running a stage again: what it and the later ones have written steps aside, so that nothing goes on from it.

Nothing is deleted: `replaced/1`, `replaced/2`, ... of the run directory hold it, laid out as it was.

Knows the run directory and the records of its stages. Does not know what a stage does.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from psr.errors import UsageError
from psr.run.record import StageRecord
from psr.run.results import keep_models

REPLACED = "replaced"
OURS = {"run.json", "stages.json", "results.json", "lock", "stopped", "overlays", "trials", REPLACED}
"""What is no stage's: files and folders at the top of a run directory."""


def files_of(run_dir: Path) -> Iterator[str]:
    """What the stages have written, relative to the run directory; links count as files."""
    for where, folders, names in os.walk(run_dir):
        folder = Path(where)
        if folder == run_dir:
            folders[:] = [name for name in folders if name not in OURS]
            names = [name for name in names if name not in OURS]
        links = [name for name in folders if (folder / name).is_symlink()]
        for name in sorted([*names, *links]):
            yield (folder / name).relative_to(run_dir).as_posix()


def new_files(run_dir: Path, records: Mapping[str, StageRecord], stage: str) -> tuple[str, ...]:
    """What `stage` has written: what was not there before it."""
    others = {name for other, record in records.items() if other != stage for name in record.files}
    return tuple(name for name in files_of(run_dir) if name not in others)


def before(records: Mapping[str, StageRecord], stage: str) -> dict[str, StageRecord]:
    """The records of the stages before `stage`. Raises UsageError where it has not run."""
    if stage not in records:
        raise UsageError(f"redo is {stage!r}, and the stages that have run are {', '.join(records) or 'none'}")
    names = list(records)
    return {name: records[name] for name in names[: names.index(stage)]}


def step_aside(run_dir: Path, kept: Mapping[str, StageRecord]) -> None:
    """Move aside what was written after the stages that are `kept`."""
    stay = {name for record in kept.values() for name in record.files}
    number = 1 + len(list((run_dir / REPLACED).glob("*")))
    for name in list(files_of(run_dir)):
        if name not in stay:
            target = run_dir / REPLACED / str(number) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(run_dir / name, target)
    for where, _, _ in os.walk(run_dir, topdown=False):
        folder = Path(where)
        if folder != run_dir and folder.relative_to(run_dir).parts[0] not in OURS and not any(folder.iterdir()):
            folder.rmdir()
    keep_models(run_dir / "results.json", {name for record in kept.values() for name in record.models})
