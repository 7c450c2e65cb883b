"""The data of the search viewer: a sample of every iteration's searched problems, ready for the page.

Reads only the sampled lines of the traces and writes nothing, so the run may still be going on. Texts are stored once,
escaped, with their formulas as MathML.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from psr.files.jsonl import DataError
from psr.records import StepNode, Trajectory, trajectory_from_json
from psr.report.mathematics import to_html
from psr.report.runs import Run


class Texts:
    """Distinct texts as HTML, in order of appearance; records name them by number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def html(self) -> list[str]:
        return [to_html(text.strip()) for text in self._numbers]


def viewer_data(runs: Sequence[Run], problems: int) -> dict[str, Any]:
    """The viewer's JSON: at most `problems` of every iteration of every run, sampled with a fixed seed."""
    texts = Texts()
    shown = [{"name": run.name, "iterations": list(iterations(run, problems, texts))} for run in runs]
    return {"runs": [run for run in shown if run["iterations"]], "texts": texts.html()}


def iterations(run: Run, problems: int, texts: Texts) -> Iterator[dict[str, Any]]:
    """The iterations that have traces, including one that is still searching."""
    for folder in sorted((run.folder.root / "iterations").glob("*")):
        number = int(folder.name) if folder.name.isdigit() else 0
        path = run.folder.traces(number)
        if path.is_file() and (offsets := line_offsets(path)):
            drawn = sorted(random.Random(number).sample(range(len(offsets)), min(problems, len(offsets))))
            found = [problem_json(read_line(path, offsets[i], i + 1), texts) for i in drawn]
            found.sort(key=lambda problem: natural(problem["id"]))
            yield {"number": number, "searched": len(offsets), "problems": found}


def line_offsets(path: Path) -> list[int]:
    """The offset of every complete line; a last line that is being written, or was cut off by a kill, is left out."""
    offsets, place = [], 0
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                offsets.append(place)
            place += len(line)
    return offsets


def read_line(path: Path, offset: int, number: int) -> Trajectory:
    with path.open("rb") as file:
        file.seek(offset)
        try:
            return trajectory_from_json(json.loads(file.readline()))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: not a trajectory ({error}); delete the line") from None


def natural(text: str) -> list[tuple[int, str]]:
    """A sort key under which "test/9" comes before "test/10"."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def problem_json(trajectory: Trajectory, texts: Texts) -> dict[str, Any]:
    return {
        "id": trajectory.problem.id,
        "text": texts.number(trajectory.problem.problem),
        "finished": trajectory.finished,
        "nodes": [node_json(node, texts) for node in trajectory.nodes],
    }


def node_json(node: StepNode, texts: Texts) -> dict[str, Any]:
    """One expansion; candidates of the same text become one, with a count, under the index of the first."""
    first: dict[str, int] = {}
    for i, candidate in enumerate(node.candidates):
        first.setdefault(candidate.text, i)
    samples = [first[candidate.text] for candidate in node.candidates]
    return {
        "depth": node.depth,
        "event": node.event,
        "chosen": samples[node.chosen] if samples else None,
        "rejected": samples[node.rejected] if samples and node.margin > 0 else None,
        "margin": node.margin if samples else 0,
        "candidates": [
            {
                "index": i,
                "text": texts.number(text),
                "sampled": samples.count(i),
                "score": node.scores[i],
                "logprob": round(node.candidates[i].logprob, 3),
                "tokens": len(node.candidates[i].token_ids),
                "final": node.candidates[i].final,
            }
            for text, i in first.items()
        ],
        "judgements": [[j.first, j.second, j.winner, texts.number(j.text)] for j in node.judgements],
    }
