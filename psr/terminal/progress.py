"""How far a phase of work is: a bar on a terminal, a line now and then where there is none (cron, SLURM, CI).

Knows counts and the clock. Does not know what is counted.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

EVERY = 30.0
"""Seconds between two lines of a phase where there is no terminal."""

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

    def line(self) -> str:
        """The phase, share done, rate, time left, and the note."""
        seconds = time.monotonic() - self.started
        rate = (self.done - self.before) / seconds if seconds else 0.0
        share = f" ({100 * self.done // self.total}%)" if self.total else ""
        said = [f"{self.title}: {self.done:,} of {self.total:,}{share} in {duration(seconds)}"]
        if rate:
            said.append(f"{rate:,.3g}/s" if rate < 1000 else f"{rate:,.0f}/s")
        if rate and self.done < self.total:
            said.append(f"{duration((self.total - self.done) / rate)} left")
        return ", ".join([*said, *([self.note] if self.note else [])])


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
    if any(os.environ.get(name, "0") != "0" for name in RANK_VARIABLES):
        yield Progress(title, total, before)
    elif console.is_terminal and not console.is_dumb_terminal:
        with _drawing(title, console) as drawn:
            yield _Bar(title, total, before, drawn)
    else:
        with _speaking(shown := Progress(title, total, before), console, every):
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


@contextmanager
def _speaking(shown: Progress, console: Console, every: float) -> Iterator[None]:
    ended = threading.Event()

    def say() -> None:
        # Soft wrap and no markup or colours: the line goes to a file as it is.
        console.print(f"{time.strftime('%H:%M:%S')} {shown.line()}", soft_wrap=True, markup=False, highlight=False)

    def speak() -> None:
        while not ended.wait(every):
            say()

    # A thread, not the work itself: that a phase makes no headway is what a reader of the log wants to know, too.
    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        ended.set()
        speaker.join()
        say()


def duration(seconds: float) -> str:
    """As a person says it: "48 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"
