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
    results: dict[int, Result] = {}

    async def one(numbered: tuple[int, Item]) -> tuple[int, Result]:
        number, item = numbered
        return number, await work(item)

    def keep(numbered: tuple[int, Result]) -> None:
        number, result = numbered
        results[number] = result
        if on_result is not None:
            on_result(result)

    await hand_over(list(enumerate(items)), one, keep, title, concurrency, note)
    return [results[number] for number in range(len(items))]


async def hand_over(
    items: Sequence[Item],
    work: Callable[[Item], Awaitable[Result]],
    on_result: Callable[[Result], None],
    title: str,
    concurrency: int = 512,
    note: Callable[[], str] = str,
) -> None:
    """As `for_each`, but the results are handed to `on_result` alone and not held: there may be any number of them."""
    waiting = iter(items)
    with progress(title, len(items)) as shown:

        async def one_after_another() -> None:
            for item in waiting:  # which all that are under way share: each item is taken once, in order
                on_result(await work(item))
                shown.advance(note=note())
                await asyncio.sleep(0)  # those under way come before a new one

        tasks = [asyncio.ensure_future(one_after_another()) for _ in range(min(concurrency, len(items)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # gather lets the others run on after an error
                task.cancel()
