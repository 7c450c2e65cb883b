"""Shared by the data commands: benchmarks, names of files beside the data, and requests to an annotator."""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from psr.curation.annotator.client import Annotator
from psr.curation.annotator.settings import Endpoint
from psr.curation.decontamination import Benchmarks
from psr.curation.sources import read_source
from psr.search.run import for_each

SAMPLE = 2**20
"""Bytes compared at the beginning and the end of a weights file: training changes all of them."""


def read_benchmarks(sources: Sequence[str] | None) -> Benchmarks:
    """The problems of the benchmarks, which must not be in training data."""
    return Benchmarks.of({name: [row["problem"] for row in read_source(name)] for name in sources or []})


def beside(out: Path, ending: str) -> Path:
    """`<out without its ending>.<ending>`."""
    return out.with_name(f"{out.stem}.{ending}")


def fingerprint(folder: Path) -> str:
    """A fingerprint that tells the weights in a folder from earlier ones of the same name, without reading all."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(f"{path.name} {path.stat().st_size}".encode() + file.read(SAMPLE))
            file.seek(-min(SAMPLE, path.stat().st_size), os.SEEK_END)
            digest.update(file.read())
    return f"{folder} {digest.hexdigest()[:16]}"


def ask_all(endpoint: Endpoint, asked: Sequence[str], journal: Path, title: str) -> tuple[list[str], str]:
    """The replies to the prompts `asked`, in order, and a line on the cost of all, including earlier runs."""

    async def run() -> tuple[list[str], str]:
        async with Annotator(endpoint, journal) as annotator:

            async def one(prompt: str) -> str:
                return (await annotator.ask([{"role": "user", "content": prompt}])).text

            # All at once: the courier limits how many are in flight.
            replies = await for_each(asked, one, title, len(asked) or 1, note=lambda: annotator.sent.line(endpoint))
            print(f"sent now: {annotator.sent.line(endpoint)}")
            return replies, annotator.used.line(endpoint)

    return asyncio.run(run())
