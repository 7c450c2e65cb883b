"""How much memory a process holds, and how many files it has open."""

import csv
import gc
import os
from itertools import pairwise
from pathlib import Path

from lightning import Callback, LightningModule, Trainer


def held() -> tuple[float, int]:
    """Resident memory in MB and open files of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(list(Path("/proc/self/fd").iterdir()))


def opened() -> list[str]:
    """What they are, by number."""
    return [f"{path.name} {os.readlink(path)}" for path in sorted(Path("/proc/self/fd").iterdir()) if path.is_symlink()]


class Gauge(Callback):
    """Notes both at the beginning of every iteration, in `gauge.csv`."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with Path("gauge.csv").open("a", newline="") as file:
            csv.writer(file).writerow([*held(), *opened()])


def read(path: Path) -> tuple[list[float], list[int]]:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    return [float(row[0]) for row in rows], [int(row[1]) for row in rows]


def new_files(path: Path) -> list[str]:
    """What was opened on the way and stayed open, with the iteration."""
    with path.open(newline="") as file:
        rows = [row[2:] for row in csv.reader(file)]
    found = []
    for number, (before, now) in enumerate(pairwise(rows), start=2):
        found += [f"{name} (iteration {number})" for name in now if name not in before]
    return found
