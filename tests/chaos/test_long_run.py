"""Twenty iterations hold no more memory and no more files than the first few: the trainer, and the client of a server.

Prints both series.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from psr.engines.base import Origin, Sampling
from tests.chaos import gauge
from tests.chaos.runs import before_the_loop, recipe, start, stop
from tests.engines.conftest import PROMPTS, Make, launch, make, starts  # noqa: F401 - fixtures
from tests.recipes.tiny_run import LIMIT

pytestmark = pytest.mark.slow

ITERATIONS = 20
SETTLED = 5
"""From this iteration on nothing may grow: caches are full, and everything has been imported."""
GROWTH = 15.0
"""Megabytes; the allocator's own ups and downs."""


def assert_flat(megabytes: list[float], files: list[int]) -> None:
    assert len(megabytes) == len(files) == ITERATIONS
    half = (ITERATIONS + SETTLED) // 2
    assert max(megabytes[half:]) - max(megabytes[SETTLED:half]) < GROWTH, megabytes
    # The worker that grades answers starts when one is not plainly right or wrong, and has two pipes.
    assert max(files[SETTLED:]) - min(files[SETTLED:]) <= 2, files


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[list[float], list[int]], None]:
    def both(megabytes: list[float], files: list[int]) -> None:
        with capsys.disabled():
            print(f"\nMB by iteration:         {' '.join(f'{one:.0f}' for one in megabytes)}")
            print(f"open files by iteration: {' '.join(map(str, files))}")

    return both


def test_twenty_iterations_of_the_loop(tmp_path: Path, show: Callable[[list[float], list[int]], None]):
    problems = str([4] * ITERATIONS).replace(" ", "")
    options = (
        f"--trainer.max_epochs {ITERATIONS} --data.init_args.problems_per_iteration {problems} "
        "--trainer.callbacks+=tests.chaos.gauge.Gauge"
    )
    ours, folder = recipe(tmp_path / "tiny", options), before_the_loop(tmp_path / "run")
    process = start(ours, folder)
    try:
        _, said = process.communicate(timeout=3 * LIMIT)
    finally:
        stop(process)
    assert process.returncode == 0, said[-3000:]
    series = gauge.read(folder / "gauge.csv")
    show(*series)
    print("opened on the way:", gauge.new_files(folder / "gauge.csv"))
    assert_flat(*series)


def test_twenty_iterations_of_a_servers_client(
    make: Make,  # noqa: F811
    llama: Path,
    show: Callable[[list[float], list[int]], None],
):
    engine, found = make(), []
    for number in range(1, ITERATIONS + 1):

        async def iteration(version: str = f"M{number}") -> None:
            await engine.load_weights(llama, version)
            some = [engine.generate(PROMPTS, Sampling(4, 1.0, n=8), Origin(str(i), "candidates")) for i in range(50)]
            await asyncio.gather(*some)
            await engine.choice_logprobs(PROMPTS, [7, 5])

        asyncio.run(iteration())
        found.append(gauge.held())
    megabytes, files = [one for one, _ in found], [one for _, one in found]
    show(megabytes, files)
    assert_flat(megabytes, files)
