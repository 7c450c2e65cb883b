"""What a large search costs apart from its models: knowing what is missing, serving rows, statistics, the report.

    python benchmarks/scale.py --problems 1000 10000 100000 --json benchmarks/results/scale.json

Traces of 7B size are made up (7 steps, 6 candidates of about 100 tokens, 30 explained verdicts a step: 250 kB a
problem, so 100,000 problems need 25 GB in `--folder`, which is removed again). Every figure is of a process of its own,
which has imported everything before its clock starts. Its memory is the peak of the whole process, most of which the
imports are; what a further problem costs is the difference to the next smaller number of problems. "indexed" reads all
traces, as where there is no index yet; a search makes it problem by problem. "resumed" knows at 90% what is missing,
after a kill between two problems or while a line was written. No model runs: after the first row the first forward pass
would begin.
"""

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Trainer
from rich.console import Console
from rich.table import Table

from psr.data.self_rewarding import SelfRewardingDataModule
from psr.data.trace_index import index_of, read_indexed
from psr.data.traces import TraceJournal
from psr.engines.usage import Usage
from psr.files.jsonl import write_json, write_jsonl
from psr.files.trajectories import each_trajectory
from psr.policy.folder import export_policy, new_policy
from psr.policy.tiny_tokenizer import build_tokenizer
from psr.report.runs import read_runs
from psr.report.viewer import viewer_data
from psr.run.folder import RunFolder

STEPS, WIDTH, TOKENS, VERDICTS, EXPLAINED, PROMPT = 7, 6, 100, 30, 930, 200
VOCABULARY = 151_643
WORDS = [
    "the",
    "step",
    "is",
    "right",
    "since",
    "it",
    "follows",
    "from",
    "what",
    "was",
    "found",
    "and",
    "no",
    "sign",
    "lost",
]
MODEL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 4096,
}
HELD = 1000
"""Problems up to which all traces are held in memory once, to see that the measured peak shows it."""
DONE = 0.9
"""Of the problems, when a search is resumed."""


def trace(number: int, base: str) -> dict[str, Any]:
    """A searched problem of 7B size; the same for the same number."""
    rng = np.random.default_rng(number)
    ids = rng.integers(VOCABULARY, size=(STEPS, WIDTH, TOKENS + 20)).astype(int)
    lengths = rng.integers(TOKENS - 40, TOKENS + 20, size=(STEPS, WIDTH))
    alike = rng.integers(20, size=(STEPS, WIDTH))  # candidates often begin alike
    places = rng.integers(len(base) - EXPLAINED, size=(STEPS, VERDICTS))
    nodes = []
    for depth in range(STEPS):
        scores = rng.permutation(WIDTH).tolist()
        candidates = []
        for i in range(WIDTH):
            tokens = ids[depth, i, : lengths[depth, i]].tolist()
            tokens[: alike[depth, i]] = ids[depth, 0, : alike[depth, i]].tolist()
            text = f"{depth}.{i} " + base[places[depth, i] :][: 4 * len(tokens)]
            final = depth == STEPS - 1
            candidates.append({"token_ids": tokens, "text": text, "logprob": -20.0 - i, "final": final})
        pairs = [(i, j) for i in range(WIDTH) for j in range(WIDTH) if i != j]
        judgements = [
            {"first": i, "second": j, "winner": max(i, j, key=scores.__getitem__), "text": base[at : at + EXPLAINED]}
            for (i, j), at in zip(pairs, places[depth].tolist(), strict=True)
        ]
        ends = {"chosen": scores.index(WIDTH - 1), "rejected": scores.index(0)}
        node = {"depth": depth, "candidates": candidates, "judgements": judgements, "scores": scores}
        nodes.append({**node, **ends, "event": "kept"})
    return {
        "problem": {"id": f"p/{number}", "problem": f"{number}+3"},
        "prompt_ids": rng.integers(VOCABULARY, size=PROMPT).tolist(),
        "nodes": nodes,
        "finished": True,
        "weights_version": "M1",
        "seconds": 1.0,
    }


def lines(numbers: range) -> bytes:
    words = random.Random(0)
    base = " ".join(words.choice(WORDS) for _ in range(20_000))
    return b"".join(json.dumps(trace(number, base), ensure_ascii=False).encode() + b"\n" for number in numbers)


def make(folder: Path, problems: int) -> None:
    """A run directory whose first search is complete, with a small model."""
    write_jsonl(folder / "problems.jsonl", ({"id": f"p/{n}", "problem": f"{n}+3"} for n in range(problems)))
    tokenizer = build_tokenizer()
    export_policy(new_policy("llama", MODEL, tokenizer), tokenizer, folder / "M1")
    path = RunFolder(folder / "run").traces(2)
    path.parent.mkdir(parents=True)
    chunks = [range(first, min(first + 200, problems)) for first in range(0, problems, 200)]
    with path.open("wb") as file, get_context("spawn").Pool(2) as pool:
        for chunk in pool.imap(lines, chunks):
            file.write(chunk)


class Asked(Exception):
    """The search would begin."""


class Idle:
    """An engine that is never to be asked for anything."""

    def __init__(self) -> None:
        self.served_version: str | None = None
        self.usage: dict[str, Usage] = {}

    async def load_weights(self, folder: Path, version: str) -> None:
        raise Asked


def data_module(folder: Path, problems: int) -> SelfRewardingDataModule:
    data = SelfRewardingDataModule(
        str(folder / "M1"), str(folder / "problems.jsonl"), str(folder / "run"), Idle(), [problems]
    )
    data.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    data.setup("fit")
    return data


def resumed(folder: Path, problems: int) -> Iterator[None]:
    """From the file of problems until the first of the missing ones would be searched."""
    yield
    data = data_module(folder, problems)
    try:
        asyncio.run(data.pairs(2))
    except Asked:
        return
    raise RuntimeError("nothing was missing")


def served(folder: Path, problems: int) -> Iterator[None]:
    """From the file of problems until there is a row to train on."""
    yield
    data = data_module(folder, problems)
    print(len(next(iter(data.train_dataloader())).token_ids), file=sys.stderr)


def indexed(folder: Path, problems: int) -> Iterator[None]:
    """Every trace read, checked and indexed, as where the traces are of a version without an index."""
    yield
    TraceJournal(RunFolder(folder / "run").traces(2), "M1")


def held(folder: Path, problems: int) -> Iterator[None]:
    """All trajectories in a list, as nothing should have them: the peak has to show it."""
    yield
    print(len(list(each_trajectory(RunFolder(folder / "run").traces(2)))), file=sys.stderr)


def reported(folder: Path, problems: int) -> Iterator[None]:
    """The sample of traces that the report shows."""
    write_json(folder / "run" / "results.json", {"seed": 0, "judge": "self", "models": [{"name": "M1"}]})
    yield
    viewer_data(read_runs([folder / "run"], under_way=True), 12)


MEASURES: dict[str, Callable[[Path, int], Iterator[None]]] = {
    one.__name__: one for one in (indexed, resumed, served, reported, held)
}


def memory(name: str) -> int:
    """Bytes of this process: VmRSS is what it has, VmHWM the most that it has had."""
    # Not `getrusage`: what it calls the peak of a process is its parent's, where that is larger.
    [kib] = re.findall(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return 1024 * int(kib)


def measure(name: str, folder: Path, problems: int) -> None:
    """Print seconds and memory of one measure, in this process."""
    work = MEASURES[name](folder, problems)
    next(work)
    before, started, used = memory("VmRSS"), time.monotonic(), time.process_time()
    next(work, None)
    spent = {"seconds": time.monotonic() - started, "processor": time.process_time() - used}
    print(json.dumps({**spent, "before": before, "peak": memory("VmHWM")}))


def apart(name: str, folder: Path, problems: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", name, "--folder", str(folder), "--problems", str(problems)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {"measure": name, "problems": problems, **json.loads(said.splitlines()[-1])}


def cut(folder: Path, problems: int) -> None:
    """Leave nine tenths of the traces, as a kill between two problems does."""
    path, left = RunFolder(folder / "run").traces(2), int(DONE * problems)
    for file in (path, index_of(path)):
        with file.open("rb+") as lines:
            for _ in range(left):
                line = lines.readline()
            lines.truncate(lines.tell())
    noted = read_indexed(line).place.changed
    os.utime(path, ns=(noted, noted))


def tear(folder: Path) -> None:
    """Leave the beginning of a line, as a kill while it is written does."""
    with RunFolder(folder / "run").traces(2).open("ab") as file:
        file.write(b'{"problem": {"id": "')


def run(folder: Path, problems: int) -> list[dict[str, Any]]:
    started = time.monotonic()
    make(folder, problems)
    size = RunFolder(folder / "run").traces(2).stat().st_size
    print(f"{problems} problems, {size / 1e9:.2f} GB, made in {time.monotonic() - started:.0f} s", file=sys.stderr)
    rows = [apart(name, folder, problems) for name in ("indexed", "served", "reported")]
    if problems <= HELD:
        rows.append(apart("held", folder, problems))
    cut(folder, problems)
    rows.append(apart("resumed", folder, problems))
    tear(folder)
    return [*rows, {**apart("resumed", folder, problems), "measure": "resumed, torn line"}]


def with_growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows by measure, each with what a further problem costs: seconds and bytes, None for the fewest problems."""
    rows = sorted(rows, key=lambda one: (one["measure"], one["problems"]))
    found: list[dict[str, Any]] = []
    for before, row in zip([None, *rows], rows, strict=False):
        seconds = size = None
        if before is not None and before["measure"] == row["measure"]:
            further = row["problems"] - before["problems"]
            seconds, size = ((row[name] - before[name]) / further for name in ("seconds", "peak"))
        found.append({**row, "seconds_a_further_problem": seconds, "bytes_a_further_problem": size})
    return found


def table(rows: list[dict[str, Any]]) -> Table:
    shown = Table(
        "measure", "problems", "seconds", "CPU s", "peak GB", "ms", "bytes", title="a further problem: ms, bytes"
    )
    for row in with_growth(rows):
        cells = f"{row['seconds']:.2f}", f"{row['processor']:.2f}", f"{row['peak'] / 1e9:.2f}"
        seconds, size = row["seconds_a_further_problem"], row["bytes_a_further_problem"]
        growth = ("", "") if seconds is None else (f"{1000 * seconds:.3f}", f"{size:.0f}")
        shown.add_row(row["measure"], str(row["problems"]), *cells, *growth)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--folder", type=Path, default=Path("runs/scale"), help="for the traces; removed at the end")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", choices=MEASURES, help="do this alone, in a folder that is there")
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.folder, options.problems[0])
        return
    rows = []
    for problems in options.problems:
        shutil.rmtree(options.folder, ignore_errors=True)
        rows += run(options.folder, problems)
        Console().print(table(rows))
    shutil.rmtree(options.folder)
    if options.json:
        write_json(options.json, {"rows": with_growth(rows)})


if __name__ == "__main__":
    main()
