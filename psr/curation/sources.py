"""Where problems come from: hub sets through `datasets`, files of rows, and the generator, all in one schema.

A row has `id`, `problem`, `source` and, where there is one, `solution` and `answer`. Knows columns and formats of
answers; does not know what the rows are for. Without network, hub sets load from the cache of `datasets`.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from psr.answers import extract_boxed
from psr.bounds import Count, Seed, bounded
from psr.curation import arithmetic
from psr.files.jsonl import DataError
from psr.files.kinds import SourceRow
from psr.files.rows import checked
from psr.files.tables import ENDINGS, is_table, located_rows
from psr.terminal.text import some_names

FIELDS = ("id", "problem", "solution", "answer")
HUB = "hub"
"""Stands where a folder may stand: the sets come from the hub."""
CALCULATOR = re.compile(r"<<[^<>]*>>")


@bounded("source")
@dataclass(frozen=True)
class Source:
    """One set of problems.

    Args:
        path: name of a hub set, a JSONL or Parquet file, or "arithmetic", our generator.
        name: configuration of the hub set, where it has several.
        split: split of the hub set.
        columns: column name of each field, as in {problem: question}; other fields are columns of the same name.
        answer: where the answer is: in its "column", in the solution's last box ("boxed"), or after the solution's
            last "####" ("hashes", GSM8K's format: the mark and the calculator's annotations are removed).
        streaming: read the hub set row by row instead of downloading all of it first.
        limit: only this many rows, from the first; the generator needs it.
        seed: seed of the generator.
    """

    path: str
    name: str | None = None
    split: str = "train"
    columns: dict[str, str] = field(default_factory=dict)
    answer: Literal["column", "boxed", "hashes"] = "column"
    streaming: bool = False
    limit: Count | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.columns) - set(FIELDS))
        if unknown:
            raise DataError(f"source.columns names the field {unknown[0]!r}: there are only {', '.join(FIELDS)}")


QUESTION = {"problem": "question"}
KNOWN = {
    "gsm8k": Source("openai/gsm8k", "main", columns={**QUESTION, "solution": "answer"}, answer="hashes"),
    "math": Source("DigitalLearningGmbH/MATH-lighteval", answer="boxed"),
    "numinamath": Source("AI-MO/NuminaMath-CoT", answer="boxed", streaming=True),
    "prm800k": Source("tasksource/PRM800K"),
    "gsm8k-test": Source("openai/gsm8k", "main", "test", {**QUESTION, "solution": "answer"}, "hashes"),
    "math-test": Source("DigitalLearningGmbH/MATH-lighteval", split="test", answer="boxed"),
    "math500": Source("HuggingFaceH4/MATH-500", split="test", columns={"id": "unique_id"}),
    "gaokao2023en": Source("MARIO-Math-Reasoning/Gaokao2023-Math-En", columns=QUESTION),
    "olympiadbench": Source(
        "Hothan/OlympiadBench", "OE_TO_maths_en_COMP", columns={**QUESTION, "answer": "final_answer"}
    ),
    "aime2024": Source("HuggingFaceH4/aime_2024"),
    "amc2023": Source("math-ai/amc23", split="test", columns=QUESTION),
}
"""Sources by a short name: training sets (prm800k has ratings instead of solutions), then the benchmarks."""
BENCHMARKS = ("gsm8k-test", "math-test", "math500", "gaokao2023en", "olympiadbench", "aime2024", "amc2023")


def find_source(source: str | Source) -> Source:
    """The source given by a short name, a file's path, a hub name, or a Source itself. Raises as `located`."""
    if isinstance(source, Source):
        return source
    place = located(source)
    return KNOWN.get(place, Source(place))


def located(source: str) -> str:
    """A short name with a place: "hub/gsm8k" is the set on the hub, gsm8k, and "DIR/gsm8k" a file in a folder.

    The file is gsm8k.jsonl, gsm8k.jsonl.gz or gsm8k.parquet, in psr's own columns. So a recipe names its sets once, and
    whether they come from the hub or from a folder is one setting of it. Anything else is returned as it is.

    Raises:
        DataError: the folder has no such file.
    """
    place, _, name = source.rpartition("/")
    if name not in KNOWN or not place:
        return source
    if place == HUB:
        return name
    if not Path(place).is_dir():  # as in "openai/gsm8k", a hub name
        return source
    files = [Path(place) / f"{name}{ending}" for ending in ENDINGS]
    for file in files:
        if file.is_file():
            return str(file)
    raise DataError(f"no {' or '.join(file.name for file in files)} in {place}: put one there, or give data=hub")


def read_source(source: str | Source) -> Iterator[dict[str, str]]:
    """The rows of a source, one by one, all values as texts.

    Raises:
        DataError: no such file, hub set, configuration or split; a column that is missing or a row without a problem.
    """
    source = find_source(source)
    if source.path != "arithmetic" and is_table(source.path):
        rows = located_rows(source.path)
    else:
        found = _generated(source) if source.path == "arithmetic" else hub_rows(source)
        rows = ((f"{source.path}, row {number}", row) for number, row in enumerate(found, start=1))
    number = -1
    for number, (where, row) in enumerate(islice(rows, source.limit)):
        yield _in_schema(source, number, where, row)
    if number < 0:
        raise DataError(f"{source.path}: there are no rows")


def _generated(source: Source) -> Iterator[dict[str, Any]]:
    if source.limit is None:
        raise DataError("source.limit is not given, and the generator 'arithmetic' never ends: give a limit")
    for chain in arithmetic.chains(source.seed, 3, 5, 0.4):
        steps = arithmetic.solution(chain, arithmetic.random.Random(0))
        yield {"problem": chain.text, "answer": str(chain.answer), "solution": "\n".join(steps)}


def hub_rows(source: Source) -> Iterator[dict[str, Any]]:
    """The rows of a hub set as they are. Raises DataError as `read_source`."""
    from datasets import disable_progress_bars, load_dataset

    if not sys.stderr.isatty():
        disable_progress_bars()  # which would fill a log with redrawn lines
    try:
        rows = load_dataset(source.path, source.name, split=source.split, streaming=source.streaming)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"source.path {source.path!r} (name {source.name!r}, split {source.split!r}) is no file ending in .jsonl "
            f"or .parquet, and the hub has not given it: {reason}. A short name is one of {', '.join(KNOWN)}"
        ) from error
    for column in source.columns.values():
        if rows.column_names is not None and column not in rows.column_names:
            raise DataError(f"source.columns: {source.path} has no {column!r}, only {some_names(rows.column_names)}")
    yield from rows


def _in_schema(source: Source, number: int, where: str, row: dict[str, Any]) -> dict[str, str]:
    theirs = {name: source.columns.get(name, name) for name in (*FIELDS, "source")}
    if theirs["problem"] not in row:
        raise DataError(f"{where}: field {theirs['problem']!r} is missing; the row has {some_names(row)}")
    known = checked(where, {name: row.get(column) for name, column in theirs.items()}, SourceRow)
    origin = known.get("source", source.path) if is_table(source.path) else f"{source.path}:{source.split}"
    values = {"id": f"{origin}/{number}", **known}
    solution = known.get("solution", "")
    if source.answer == "boxed" and (boxed := extract_boxed(solution)):
        values["answer"] = boxed
    if source.answer == "hashes":
        solution, _, answer = solution.rpartition("####")
        values["answer"], values["solution"] = answer.strip(), CALCULATOR.sub("", solution).strip()
    return {**values, "source": origin}  # type: ignore[dict-item]


def limited(source: str | Source, limit: Count | None) -> Source:
    """The source limited to at most this many rows."""
    source = find_source(source)
    return source if limit is None else replace(source, limit=limit)
