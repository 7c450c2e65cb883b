"""`psr grade`: predictions of any system against reference answers, as `psr evaluate` grades its own."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psr.bounds import CountOrNone, bounded

if TYPE_CHECKING:
    from psr.evaluation.grading import Verdict

Row = dict[str, Any]
UNREAD = ("number", "no answer", "empty")
"""Rules whose wrong answers are no matter of opinion: two different numbers, or no answer at all."""


@bounded()
def grade(file: Path, out: Path | None = None, without_box: bool = False, show: CountOrNone = 20) -> None:
    r"""Grade predictions against reference answers: accuracy with its interval, and the disagreements worth reading.

    Args:
        file: JSON lines with `prediction` (a solution with its answer in \boxed{}), `answer`, and where the problem has
            them OlympiadBench's `unit`, `error` and `is_multiple_answer`; other fields are kept.
        out: JSON lines to write: every line of the file, in order, with `right` (null where it has no reference answer)
            and `rule`, what decided.
        without_box: also take "#### 42" and "the answer is 42" for an answer where nothing is boxed, counted apart.
        show: print so many of the wrong answers that are neither another number nor missing.
    """
    from rich.console import Console

    from psr.evaluation.rules import verdicts
    from psr.files.jsonl import DataError, located_objects, write_jsonl
    from psr.files.kinds import GoldRow, Predicted
    from psr.files.problems import gold_problem
    from psr.files.rows import checked

    rows, problems = [], []
    for number, (where, row) in enumerate(located_objects(file), start=1):
        checked(where, row, Predicted)
        problems.append(gold_problem(checked(where, {**row, "id": number, "problem": "-"}, GoldRow)))
        rows.append(row)
    if not rows:
        raise DataError(f"{file}: the file holds no rows")
    found = verdicts(problems, [row["prediction"] for row in rows], without_box=without_box)
    graded: list[Row] = [
        {**row, "right": verdict.right if verdict else None, "rule": verdict.rule if verdict else None}
        for row, verdict in zip(rows, found, strict=True)
    ]
    if out is not None:
        write_jsonl(out, graded)
    console = Console()
    for line in summary(rows, found, without_box):
        console.print(line, highlight=False, markup=False)
    if disagreements := worth_reading(rows, found)[:show]:
        console.print(_table(disagreements))
    if out is not None:
        console.print(f"written to {out}", highlight=False, markup=False)


def summary(rows: Sequence[Row], found: "Sequence[Verdict | None]", without_box: bool) -> list[str]:
    """What there is to say of all predictions: accuracy, what has no answer, what decided."""
    from psr.answers import extract_boxed
    from psr.evaluation.statistics import accuracy_figures, box_remark, in_percent

    def accuracy(name: str, right: list[bool]) -> str:
        figures = accuracy_figures(right)
        ends = (figures["accuracy_low"], figures["accuracy_high"])
        return f"{name}: {in_percent(figures['accuracy'], ends if right else None)}% of {len(right)} right"  # type: ignore[arg-type]

    counted = [(row, verdict) for row, verdict in zip(rows, found, strict=True) if verdict is not None]
    boxed = [extract_boxed(row["prediction"]) is not None for row, _ in counted]
    lines = [accuracy("accuracy", [v.right and box for (_, v), box in zip(counted, boxed, strict=True)])]
    if without_box:
        read = sum(v.rule != "no answer" and not box for (_, v), box in zip(counted, boxed, strict=True))
        lines.append(accuracy(f"with the {read} answers that were read without a box", [v.right for _, v in counted]))
    no_box = boxed.count(False) / len(boxed) if boxed else None
    lines.append(f"without a box: {in_percent(no_box)}%")
    if not without_box and (remark := box_remark(str(len(counted)) + " predictions", no_box)):
        lines.append(remark)
    if len(counted) < len(rows):
        lines.append(f"no reference answer, not counted: {len(rows) - len(counted)}")
    rules = Counter((verdict.rule, verdict.right) for _, verdict in counted)
    decided = (f"{rule} {'right' if right else 'wrong'} {count}" for (rule, right), count in rules.most_common())
    return [*lines, f"decided by: {', '.join(decided)}"]


def worth_reading(rows: Sequence[Row], found: "Sequence[Verdict | None]") -> list[Row]:
    """Wrong answers that a reader might take for right, each pair of answer and reference answer once."""
    from psr.answers import answer_of

    first: dict[tuple[str, str], Row] = {}
    for number, (row, verdict) in enumerate(zip(rows, found, strict=True), start=1):
        if verdict is not None and not verdict.right and verdict.rule not in UNREAD:
            pair = (answer_of(row["prediction"]) or "", str(row["answer"]))
            same = first.setdefault(pair, {"row": number, "rule": verdict.rule, "times": 0})
            same["times"] += 1
    return [{"answer": answer, "gold": gold, **row} for (answer, gold), row in first.items()]


def _table(disagreements: Sequence[Row]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from psr.terminal.text import printable

    columns = ("row", "answer", "reference answer", "rule", "times")
    table = Table(*columns, title="wrong, and worth reading", box=SIMPLE_HEAD)
    for one in disagreements:
        cells = (printable(str(one[key])) for key in ("row", "answer", "gold", "rule", "times"))
        table.add_row(*(Text(cell if len(cell) <= 60 else cell[:57] + "...") for cell in cells))
    return table
