r"""How grading bears rewritten answers: those of the same value have to stay right, those of another have to be wrong.

    python -m benchmarks.grading shared/data --out benchmarks/results/grading.json

Takes the reference answers of all benchmark files of a folder, each once with its unit and tolerance, rewrites them in
every way of `benchmarks.rewrites`, grades the rewritten ones, and prints two tables.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.rewrites import CHANGING, KEEPING, NAMING_A_UNIT, UNITS, Rewrite
from psr.evaluation.benchmarks import read_benchmark
from psr.evaluation.comparing import named_unit
from psr.evaluation.grading import Verdict
from psr.evaluation.rules import has_gold, verdicts
from psr.evaluation.words import unit_of
from psr.files.jsonl import write_json
from psr.records import GoldProblem

FILES = (
    *("gsm8k_train", "gsm8k_test", "svamp", "asdiv", "math_test", "math500", "gaokao2023en", "olympiadbench"),
    *("aime2024", "amc2023"),
)
Graded = list[tuple[GoldProblem, str, Verdict]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the benchmark files")
    parser.add_argument("--out", type=Path, help="JSON with both tables to write")
    parser.add_argument("--show", type=int, default=0, help="print so many of each kind's failures")
    parser.add_argument("--kinds", nargs="*", help="only these kinds")
    some = parser.parse_args()
    problems = [one for name in FILES for one in read_benchmark(str(some.data / f"{name}.jsonl")) if has_gold(one)]
    distinct = list({(one.answer, one.unit, one.tolerance): one for one in problems}.values())
    print(f"{len(problems)} reference answers, {len(distinct)} of them distinct")
    as_they_are = graded(problems, lambda answer: answer)
    print(f"as they are: {sum(not verdict.right for *_, verdict in as_they_are)} of {len(problems)} wrong")
    keeping = chosen(KEEPING, some.kinds)
    changing = chosen(CHANGING, some.kinds)
    # Where a problem names its unit another one is a change, and where it has a tolerance another digit may be none.
    unitless, exact = [one for one in distinct if not one.unit], [one for one in distinct if one.tolerance is None]
    kept = {kind: graded(unitless if kind in NAMING_A_UNIT else distinct, rewrite) for kind, rewrite in keeping.items()}
    changed = {kind: graded(exact, rewrite) for kind, rewrite in changing.items()}
    if not some.kinds:
        changed["another unit than asked for"] = in_other_units(distinct)
    tables = {"keeping": tally(kept, wrong_if=False), "changing": tally(changed, wrong_if=True)}
    report("the value is kept", "wrong", tables["keeping"])
    report("the value is changed", "right", tables["changing"])
    for failures, fault in ((kept, False), (changed, True)):
        for kind, cases in failures.items():
            shown = [case for case in cases if case[2].right is fault][: some.show]
            for problem, text, verdict in shown:
                print(f"{kind}: {text!r} for {problem.answer!r} {problem.unit}: {verdict}")
    if some.out:
        write_json(some.out, {"schema": 1, "answers": len(problems), "distinct": len(distinct), **tables})


def chosen(kinds: Mapping[str, Rewrite], names: list[str] | None) -> dict[str, Rewrite]:
    return {kind: rewrite for kind, rewrite in kinds.items() if not names or kind in names}


def graded(problems: list[GoldProblem], rewrite: Rewrite) -> Graded:
    rewritten = [(problem, text) for problem in problems if (text := rewrite(problem.answer)) is not None]
    return grade_all(rewritten)


def grade_all(rewritten: list[tuple[GoldProblem, str]]) -> Graded:
    found = verdicts([problem for problem, _ in rewritten], [rf"\boxed{{{text}}}" for _, text in rewritten])
    return [(problem, text, v) for (problem, text), v in zip(rewritten, found, strict=True) if v is not None]


def in_other_units(problems: list[GoldProblem]) -> Graded:
    asked = [problem for problem in problems if problem.unit]
    wrong = [
        (problem, f"{problem.answer.strip('$')} {unit}")
        for problem in asked
        for unit in UNITS
        if unit_of(named_unit(problem.unit)) != unit_of(named_unit(unit))
    ]
    return grade_all(wrong)


def tally(cases: dict[str, Graded], wrong_if: bool) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "answers": len(some), "faults": sum(verdict.right is wrong_if for *_, verdict in some)}
        for kind, some in cases.items()
    ]


def report(title: str, fault: str, rows: list[dict[str, Any]]) -> None:
    table = Table("kind", "answers", fault, "%", title=title, box=SIMPLE_HEAD)
    total = {"kind": f"all {len(rows)} kinds", **{key: sum(row[key] for row in rows) for key in ("answers", "faults")}}
    for row in [*rows, total]:
        share = f"{100 * row['faults'] / row['answers']:.2f}" if row["answers"] else "-"
        table.add_row(row["kind"].replace("[", r"\["), str(row["answers"]), str(row["faults"]), share)
    Console(width=100).print(table)


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.0f} s")
