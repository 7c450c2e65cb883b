"""Many problems at once: the same coroutine for each, with a progress bar and a bound on those under way.

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
    """`await work(item)` for every item, at most `concurrency` at a time; results in the order of the items.

    `on_result` gets each result as soon as it is there; `note()` is appended to the progress line. The first error is
    raised and cancels the rest; earlier results have reached `on_result` by then.
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
            for task in tasks:  # gather lets the others run on after an error
                task.cancel()
