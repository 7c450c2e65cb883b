"""IFT data (how to reason step by step): worked solutions cut into steps, checked, and kept or rejected.

Knows rows of a source and segmentations. Does not know who cut the solution.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from psr.answers import extract_boxed
from psr.curation.decontamination import Benchmarks, normalized
from psr.curation.segmenting import by_lines, by_sentences, keeps_box, similarity, with_box

SCHEMA = "psr-ift-1"
Segmenter = Literal["lines", "sentences", "annotator"]
BY_RULE = {"lines": by_lines, "sentences": by_sentences}


@dataclass
class IFTData:
    """What became of every row: `rows` are kept, `rejects` are not and have a `reason`."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)

    def reject(self, row: Mapping[str, Any], reason: str, detail: str = "") -> None:
        self.rejects.append({"id": row["id"], "reason": reason, "detail": detail, **row})


def usable(source: Iterable[Mapping[str, Any]], benchmarks: Benchmarks, data: IFTData) -> list[dict[str, Any]]:
    """The rows worth cutting; rejected are those without solution or answer, in a benchmark, or duplicates."""
    rows: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    for row in source:
        problem, solution = normalized(row["problem"]), row.get("solution", "")
        if not solution.strip():
            data.reject(row, "no solution")
        elif extract_boxed(solution) is None and not row.get("answer", "").strip():
            data.reject(row, "no answer", "the solution boxes none, and there is no field `answer`")
        elif (benchmark := benchmarks.holding(row["problem"])) is not None:
            data.reject(row, "in a benchmark", benchmark)
        elif problem in seen:
            data.reject(row, "problem twice", f"as {seen[problem]}")
        else:
            seen[problem] = row["id"]
            rows.append(dict(row))
    return rows


def take(row: Mapping[str, Any], steps: Sequence[str], least_similarity: float, min_steps: int, data: IFTData) -> None:
    """Keep a row with its steps if the text was not altered; reject it otherwise."""
    solution = row["solution"]
    alike = similarity(solution, steps)
    if not steps:
        data.reject(row, "no steps", "the reply is not of the form Step 1: ... Step 2: ...")
    elif not keeps_box(solution, steps):
        data.reject({**row, "steps": list(steps)}, "box lost", f"the solution boxes {extract_boxed(solution)}")
    elif alike < least_similarity:
        data.reject({**row, "steps": list(steps)}, "altered", f"similarity {alike:.4f}")
    elif len(steps) < min_steps:
        data.reject({**row, "steps": list(steps)}, "too few steps", str(len(steps)))
    else:
        data.rows.append(kept_row(row, steps))


def kept_row(row: Mapping[str, Any], steps: Sequence[str]) -> dict[str, Any]:
    """The row of the data set: one step per line, the answer boxed in the last one."""
    answer = row.get("answer") or extract_boxed(row["solution"])
    text = "\n".join(with_box(steps, answer))
    return {
        "schema": SCHEMA,
        "id": row["id"],
        "problem": row["problem"],
        "solution": text,
        "answer": answer,
        "source": row.get("source", ""),
    }
