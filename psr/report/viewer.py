"""The data of the search viewer: a sample of every iteration's searched problems, ready for the page.

Reads only the sampled lines of the traces and writes nothing, so the run may still be going on. Texts are stored once,
escaped, with their formulas as MathML.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from psr.files.trajectories import trajectory_of
from psr.records import StepNode, Trajectory
from psr.report.mathematics import to_html
from psr.report.runs import Run

ID = re.compile(rb'\{"problem": \{"id": "((?:[^"\\]|\\.)*)"')
"""How a line of the traces begins."""


class Texts:
    """Distinct texts as HTML, in order of appearance; records name them by number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def html(self) -> list[str]:
        return [to_html(text.strip()) for text in self._numbers]


class Lines:
    """The offsets of the complete lines of a file that may grow; a last line that is being written, or was cut off by a
    kill, is left out.

    `ids` are the problems' ids as they are written, read off the beginnings of the lines.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.offsets, self.ids, self._end = path, list[int](), list[bytes](), 0

    def read_on(self) -> "Lines":
        """With all lines so far; only what is new of the file is read."""
        with self.path.open("rb") as lines:
            lines.seek(self._end)
            for line in lines:
                if line.endswith(b"\n"):
                    found = ID.match(line)
                    self.ids.append(found[1] if found else line[:200])
                    self.offsets.append(self._end)
                    self._end += len(line)
        return self


Known = dict[Path, Lines]
"""What is known of the files of traces; kept from one look to the next, the next is cheap."""


def viewer_data(runs: Sequence[Run], problems: int, known: Known | None = None) -> dict[str, Any]:
    """The viewer's JSON: at most `problems` of every iteration of every run, drawn the same way every time."""
    texts, known = Texts(), {} if known is None else known
    shown = [{"name": run.name, "iterations": list(iterations(run, problems, texts, known))} for run in runs]
    return {"runs": [run for run in shown if run["iterations"]], "texts": texts.html()}


def iterations(run: Run, problems: int, texts: Texts, known: Known) -> Iterator[dict[str, Any]]:
    """The iterations that have traces, also one that is still searching."""
    for folder in sorted((run.folder.root / "iterations").glob("*")):
        number = int(folder.name) if folder.name.isdigit() else 0
        path = run.folder.traces(number)
        if path.is_file() and (lines := known.setdefault(path, Lines(path)).read_on()).offsets:
            places = drawn(lines.ids, problems)
            found = [problem_json(read_line(path, lines.offsets[i], i + 1), texts) for i in places]
            found.sort(key=lambda problem: natural(problem["id"]))
            yield {"number": number, "searched": len(lines.offsets), "problems": found}


def drawn(ids: Sequence[bytes], count: int) -> list[int]:
    """Which lines are shown: those whose problems draw the lowest lots.

    So runs that searched the same problems show the same ones, in whatever order they were done, and one line more
    changes the choice by one at most.
    """
    lots = sorted(range(len(ids)), key=lambda line: (zlib.crc32(ids[line]), line))
    return sorted(lots[:count])


def read_line(path: Path, offset: int, number: int) -> Trajectory:
    with path.open("rb") as file:
        file.seek(offset)
        return trajectory_of(f"{path}, line {number}", file.readline())


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
