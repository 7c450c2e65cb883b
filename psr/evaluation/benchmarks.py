"""Benchmarks: problems with their reference answers and grading rules, from files or, by name, from the hub.

Knows columns and names; how answers are compared is `psr.evaluation.rules`'.
"""

from itertools import islice
from pathlib import Path

from psr.curation.sources import KNOWN, Source, find_source, hub_rows, limited, located, read_source
from psr.files.kinds import GoldRow
from psr.files.problems import check_ids, gold_problem
from psr.files.rows import checked, read_rows
from psr.files.tables import is_table
from psr.records import GoldProblem

_SVAMP = {"id": "ID", "problem": "question_concat", "answer": "Answer"}
BENCHMARKS = {
    **{name: KNOWN[name] for name in ("gsm8k-test", "math-test", "math500", "gaokao2023en", "olympiadbench")},
    **{name: KNOWN[name] for name in ("aime2024", "amc2023")},
    "svamp": Source(
        "ChilleD/SVAMP", split="test", columns={"id": "ID", "problem": "question_concat", "answer": "Answer"}
    ),
    "asdiv": Source("MU-NLPC/Calc-asdiv_a", split="test", columns={"problem": "question", "answer": "result"}),
}
"""By a short name, as `datasets` loads them; a file with the same problems serves as well."""


def read_benchmark(name: str, limit: int | None = None) -> list[GoldProblem]:
    """The problems of a file (JSONL or Parquet: `id`, `problem`, `answer`, and the rules of `GoldRow`), or of a set.

    Problems without an answer are kept: they are solved but not counted.

    Raises:
        DataError: as `read_rows` and `read_source`, or an id that occurs twice.
    """
    name = located(name)
    if is_table(name):
        rows = read_rows(name, GoldRow, limit)
    else:
        source = limited(BENCHMARKS.get(name, find_source(name)), limit)
        pairs = zip(read_source(source), islice(hub_rows(source), limit), strict=True)
        rows = [checked(f"{name}, row {i + 1}", {**theirs, **ours}, GoldRow) for i, (ours, theirs) in enumerate(pairs)]
    problems = [gold_problem(row, number) for number, row in enumerate(rows)]
    check_ids(name, [problem.id for problem in problems])
    return problems


def benchmark_label(name: str) -> str:
    """What a benchmark's results are filed under."""
    return Path(name).name.partition(".")[0]
