"""Many problems at once: the same coroutine for each, with progress and a bound on those under way.

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
    """`await work(item)` for every item, at most `concurrency` at a time; results in the order of the items.

    `on_result` gets each result as soon as it is there; `note()` is appended to the progress line. The first error is
    raised and cancels the rest; earlier results have reached `on_result` by then.
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
            for task in tasks:  # gather lets the others run on after an error
                task.cancel()
