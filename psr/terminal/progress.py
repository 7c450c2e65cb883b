"""How far a phase of work is: a bar on a terminal, a line now and then where there is none (cron, SLURM, CI).

Where the environment names a file, the phase is noted there as well, for whoever looks on from another process. Knows
counts and the clock. Does not know what is counted.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

EVERY = 30.0
"""Seconds between two lines of a phase where there is no terminal."""

NOTED_EVERY = 1.0
"""Seconds between two notes in the file."""
FILE = "PSR_PROGRESS"
"""Environment variable that names the file."""

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""What launchers number processes with; all processes of a run share one terminal, and only the first speaks."""


class Progress:
    """The count of a phase; `advance` it. Shows nothing by itself."""

    def __init__(self, title: str, total: int, before: int = 0) -> None:
        self.title, self.total, self.before, self.done, self.note = title, total, before, before, ""
        self.started = time.monotonic()

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """So many more are done; `note` is what else there is to say, from now on."""
        self.done += count
        self.note = self.note if note is None else note

    @property
    def rate(self) -> float:
        """A second, of what this process has done."""
        return (self.done - self.before) / max(time.monotonic() - self.started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """None where nothing has been done yet."""
        return (self.total - self.done) / self.rate if self.done > self.before else None

    def line(self) -> str:
        """The phase, share done, rate, time left, and the note."""
        share = f" ({100 * self.done // self.total}%)" if self.total else ""
        passed = duration(time.monotonic() - self.started)
        said = [f"{self.title}: {self.done:,} of {self.total:,}{share} in {passed}"]
        if self.seconds_left is not None:
            said.append(f"{self.rate:,.3g}/s" if self.rate < 1000 else f"{self.rate:,.0f}/s")
            said += [f"{duration(self.seconds_left)} left"] if self.done < self.total else []
        return ", ".join([*said, *([self.note] if self.note else [])])

    def noted(self) -> dict[str, Any]:
        """For the file; `time` says how fresh it is, since a process that was killed leaves its last one."""
        shown = {"title": self.title, "done": self.done, "total": self.total, "note": self.note}
        return {**shown, "rate": self.rate, "seconds_left": self.seconds_left, "time": time.time()}


@contextmanager
def progress(
    title: str, total: int, before: int = 0, console: Console | None = None, every: float = EVERY
) -> Iterator[Progress]:
    """Show how far a phase is while the block runs, and that it is done, or how far it came.

    `before` of the total were done by an earlier process: they count as done, and not for the rate.

    Without a terminal that is a line every so many seconds, also while nothing advances, and one at the end. Of several
    processes that a launcher started, the first one alone shows anything.
    """
    console = console or Console()
    noted = os.environ.get(FILE)
    if any(os.environ.get(name, "0") != "0" for name in RANK_VARIABLES):
        yield Progress(title, total, before)
    elif console.is_terminal and not console.is_dumb_terminal:
        with _drawing(title, console) as drawn:
            shown: Progress = _Bar(title, total, before, drawn)
            with _noting(shown, noted):
                yield shown
    else:
        shown = Progress(title, total, before)
        with _noting(shown, noted), _speaking(shown, console, every):
            yield shown


class _Bar(Progress):
    """Draws itself with rich."""

    def __init__(self, title: str, total: int, before: int, drawn: RichProgress) -> None:
        super().__init__(title, total, before)
        self._drawn, self._task = drawn, drawn.add_task(title, total=total, completed=before, note="")

    def advance(self, count: int = 1, note: str | None = None) -> None:
        super().advance(count, note)
        self._drawn.update(self._task, advance=count, note=self.note)


def _drawing(title: str, console: Console) -> RichProgress:
    columns = (
        TextColumn(f"[bold]{escape(title)}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    return RichProgress(*columns, console=console)


def _speaking(shown: Progress, console: Console, every: float) -> AbstractContextManager[None]:
    def say() -> None:
        # Soft wrap and no markup or colours: the line goes to a file as it is.
        console.print(f"{time.strftime('%H:%M:%S')} {shown.line()}", soft_wrap=True, markup=False, highlight=False)

    return _repeated(say, every)


def _noting(shown: Progress, file: str | None) -> AbstractContextManager[None]:
    if not file:
        return nullcontext()
    path = Path(file)
    partial = path.with_suffix(f".{id(shown):x}.partial")  # a phase inside another notes itself in the same file

    def note() -> None:
        with suppress(OSError):  # a full disk is for those to report whose files matter
            partial.write_text(json.dumps(shown.noted()))
            partial.replace(path)  # whoever reads it finds a whole one

    return _repeated(note, NOTED_EVERY)


@contextmanager
def _repeated(act: Callable[[], None], every: float) -> Iterator[None]:
    """Every so many seconds while the block runs, and at its end.

    In a thread, not by the work itself: that a phase makes no headway is what a reader wants to know, too.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every):
            act()

    repeater = threading.Thread(target=repeat, daemon=True)
    repeater.start()
    try:
        yield
    finally:
        ended.set()
        repeater.join()
        act()


@contextmanager
def noted_in(file: Path) -> Iterator[None]:
    """All phases of the block, those of processes that it starts included, are noted in `file`, which is gone then."""
    before = os.environ.get(FILE)
    os.environ[FILE] = str(file)
    try:
        yield
    finally:
        os.environ.pop(FILE)
        if before is not None:
            os.environ[FILE] = before
        file.unlink(missing_ok=True)


def duration(seconds: float) -> str:
    """As a person says it: "48 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"
