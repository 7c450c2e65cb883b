"""Many problems at once: the same coroutine for each, with progress, at most so many under way.

Knows coroutines and the terminal. Does not know what is done for a problem.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")
Result = TypeVar("Result")


async def for_each(
    items: Sequence[Item],
    work: Callable[[Item], Awaitable[Result]],
    title: str,
    concurrency: int = 512,
    on_result: Callable[[Result], None] | None = None,
    note: Callable[[], str] = str,
) -> list[Result]:
    """`await work(item)` for every item; results in the order of the items, each shown to `on_result` as it comes.

    `note()` is what else the progress line says.

    The first error ends the whole and is raised; results that were there before it have been handed on.
    """
    gate = asyncio.Semaphore(concurrency)
    columns = (
        TextColumn(f"[bold]{title}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task(title, total=len(items), note="")

        async def one(item: Item) -> Result:
            async with gate:
                result = await work(item)
            if on_result is not None:
                on_result(result)
            progress.update(bar, advance=1, note=note())
            return result

        tasks = [asyncio.ensure_future(one(item)) for item in items]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
