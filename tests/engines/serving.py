"""The in-process engine serving a folder, for the tests that ask it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from psr.engines.base import Sampling
from psr.engines.local import LocalEngine

T = TypeVar("T")
SAMPLED = Sampling(max_new_tokens=12, temperature=1.0, n=3, seed=5)


def serve(folder: Path, ask: Callable[[LocalEngine], Awaitable[T]], **options: Any) -> T:
    """What `ask` gets from an engine that serves the folder as M1."""

    async def main() -> T:
        engine = LocalEngine(**options)
        await engine.load_weights(folder, "M1")
        return await ask(engine)

    return asyncio.run(main())
