"""Many problems at once: the same coroutine for each, with progress, at most so many under way.

Knows coroutines. Does not know what is done for a problem.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from psr.terminal.progress import progress

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

    `note()` is what else the progress says.

    The first error ends the whole and is raised; results that were there before it have been handed on.
    """
    gate = asyncio.Semaphore(concurrency)
    with progress(title, len(items)) as shown:

        async def one(item: Item) -> Result:
            async with gate:
                result = await work(item)
            if on_result is not None:
                on_result(result)
            shown.advance(note=note())
            return result

        tasks = [asyncio.ensure_future(one(item)) for item in items]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
