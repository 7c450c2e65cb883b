"""Benchmarks: problems with their reference answers and grading rules, from files or, by name, from the hub.

Knows columns and names; how answers are compared is `psr.evaluation.rules`'.
"""

from collections import Counter
from itertools import islice
from pathlib import Path

from psr.curation.sources import KNOWN, Source, find_source, hub_rows, limited, read_source
from psr.files.jsonl import DataError
from psr.files.problems import RULES, gold_problem
from psr.files.tables import is_table, read_table
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
    """The problems of a file (JSONL or Parquet: `id`, `problem`, `answer`, and what `gold_problem` reads), or of a set.

    Problems without an answer are kept: they are solved but not counted.

    Raises:
        DataError: as `read_table` and `read_source`, or an id that occurs twice.
    """
    if is_table(name):
        rows = read_table(name, ["problem"], ["id", "answer", *RULES])[:limit]
    else:
        source = limited(BENCHMARKS.get(name, find_source(name)), limit)
        pairs = zip(read_source(source), islice(hub_rows(source), limit), strict=True)
        rows = [{**{rule: theirs.get(rule) for rule in RULES}, **ours} for ours, theirs in pairs]
    problems = [gold_problem({"id": i, "answer": None, **row}) for i, row in enumerate(rows)]
    once = Counter(problem.id for problem in problems)
    if len(once) < len(problems):
        raise DataError(f"{name}: the id {once.most_common(1)[0][0]!r} occurs several times; ids must be unique")
    return problems


def benchmark_label(name: str) -> str:
    """What a benchmark's results are filed under."""
    return Path(name).name.partition(".")[0]
