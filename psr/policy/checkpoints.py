"""Checkpoints of a fit, files or folders of shards: written whole or not at all, and the last whole one found again.

Knows Lightning's checkpoints. Does not know what is trained.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from psr.errors import PSRError
from psr.files.whole import PARTIAL, REPLACED, remove, replacing, restore

META = "meta.pt"
"""What Lightning keeps in a folder of shards besides the shards."""
UNREADABLE = ".unreadable"


class CheckpointError(PSRError, ValueError):
    """A checkpoint that cannot be gone on from; the message names it and the way out."""


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoint files, each written beside its place and renamed when it is on disk.

    Lightning's own are written elsewhere and copied into place, and that copy can be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with replacing(path) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | Path, *args: Any, **options: Any) -> dict[str, Any]:
        check_whole(Path(path))
        return super().load_checkpoint(path, *args, **options)


def check_whole(path: Path) -> None:
    """Raise CheckpointError where the checkpoint cannot be read to its end."""
    if flaw := flaw_of(path):
        raise CheckpointError(
            f"the checkpoint {path} cannot be read ({flaw}): name another one, or set `ckpt_path: last`, which takes "
            "the last whole one"
        )


def flaw_of(path: Path) -> str | None:
    """Why a checkpoint cannot be read; None where it can."""
    try:
        steps_of(path)
    except Exception as error:  # whatever torch makes of a file that is not whole
        return str(error).partition("\n")[0] or type(error).__name__
    return None


def steps_of(path: Path) -> int:
    """How many optimizer steps a checkpoint is from; raises where it is not whole. Reads no tensor."""
    if path.is_dir():
        stored = dcp.FileSystemReader(path).read_metadata().storage_data
        ends: dict[str, int] = {}
        for part in (stored or {}).values():
            ends[part.relative_path] = max(ends.get(part.relative_path, 0), part.offset + part.length)
        for name, end in ends.items():
            if (path / name).stat().st_size < end:
                raise ValueError(f"{name} is shorter than its {end} bytes")
        return int(torch.load(path / META, weights_only=True)["global_step"])
    # A file's table of contents is its end, so that one that was cut short does not open.
    return int(torch.load(path, mmap=True, map_location="cpu", weights_only=True)["global_step"])


def last_checkpoint(trainer: Trainer) -> Path | None:
    """The checkpoint that `ckpt_path: last` means: of those that are whole, the one of the most optimizer steps.

    Steps and not the clock decide: clocks are set back, and differ between nodes. One that cannot be read is named on
    the terminal and gets another name.
    """
    folders = [
        Path(one.dirpath) for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint) and one.dirpath
    ]
    found: list[tuple[int, bool, Path]] = []
    for folder in folders:
        tidy(folder)
        for path in sorted(folder.glob("*.ckpt")):
            if flaw := flaw_of(path):
                set_aside(path, flaw)
            else:
                found.append((steps_of(path), path.name.startswith("last"), path))
    return max(found)[2] if found else None


@rank_zero_only
def tidy(folder: Path) -> None:
    """Undo what a kill left half done."""
    for path in folder.glob(f"*.ckpt{REPLACED}"):
        restore(path.with_name(path.name.removesuffix(REPLACED)))
    for path in folder.glob(f"*.ckpt{PARTIAL}"):
        remove(path)


@rank_zero_only
def set_aside(path: Path, flaw: str) -> None:
    """Rename a checkpoint that cannot be read, and say so."""
    aside = path.with_name(path.name + UNREADABLE)
    remove(aside)
    path.rename(aside)
    print(
        f"psr: the checkpoint {path} cannot be read ({flaw}): it is {aside.name} now, and not used. Going on from the "
        "last one that is whole, or from the beginning where there is none",
        file=sys.stderr,
    )
