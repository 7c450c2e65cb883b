"""Many at once: in order, no more than allowed, none made before its turn, and the first error ends them all."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from psr.search.run import for_each, hand_over


@pytest.mark.parametrize("concurrency", [1, 3, 100])
def test_results_are_in_the_order_of_the_items_and_so_many_are_under_way(concurrency: int):
    under_way, most, began, ended = 0, 0, list[int](), list[int]()

    async def work(item: int) -> int:
        nonlocal under_way, most
        began.append(item)
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001 * (item * 7 % 5))
        under_way -= 1
        return -item

    found = asyncio.run(for_each(list(range(20)), work, "", concurrency, ended.append))
    assert found == [-item for item in range(20)] and sorted(ended, reverse=True) == found
    assert began == list(range(20)) and most == min(concurrency, 20)


def test_of_any_number_of_items_only_those_under_way_exist():
    """Neither coroutines that wait nor results that were handed over."""
    alive = weakref.WeakSet[object]()
    most = 0

    class Result:
        pass

    async def work(item: int) -> Result:
        nonlocal most
        await asyncio.sleep(0)
        result = Result()
        alive.add(result)
        gc.collect(0)
        most = max(most, len(alive) + len(asyncio.all_tasks()))
        return result

    asyncio.run(hand_over(range(2000), work, lambda _: None, "", 4))
    assert most <= 2 * 4 + 2


def test_the_first_error_is_raised_and_ends_the_rest():
    ended, kept = list[int](), list[int]()

    async def work(item: int) -> int:
        try:
            await asyncio.sleep(0.001 if item < 2 else 0.002 if item == 2 else 3600)
            if item == 2:
                raise ValueError("two")
            return item
        finally:
            ended.append(item)

    with pytest.raises(ValueError, match="two"):
        asyncio.run(hand_over(range(10), work, kept.append, "", 4))
    assert sorted(kept) == [0, 1] and sorted(ended) == [0, 1, 2, 3, 4, 5], "6, ..., 9 never began"


def test_of_nothing_there_is_nothing():
    async def never(item: int) -> Iterator[int]:
        raise AssertionError

    assert asyncio.run(for_each([], never, "")) == []
