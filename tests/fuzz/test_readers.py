"""Whatever is in a file, a reader gives rows or raises one error of ours that names the file: no traceback, no hang.

200 inputs a reader here; `pytest -m slow tests/fuzz` tries 10,000.
"""

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psr.data.traces import TraceJournal
from psr.errors import PSRError
from psr.evaluation.benchmarks import read_benchmark
from psr.files.trajectories import each_trajectory
from psr.prompts.templates import Prompts
from psr.records import Judgement, Problem, StepNode, Trajectory, to_json
from psr.run.recipe import read_overlay, read_recipe
from psr.sweeps.file import read_sweep
from tests.files.test_rows import READERS
from tests.scripted import candidate

QUICK = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=10_000)
NODE = StepNode(0, (candidate("a"), candidate("b")), (Judgement(0, 1, 1, "[[B]]"),), (0, 1), 1, 0, "kept")
TRACE = to_json(Trajectory(Problem("p", "3+4"), (1, 2), (NODE,), True, "M1", 0.5))
SWEEP = {
    "method": "random",
    "metric": {"name": "eval/accuracy", "goal": "maximize"},
    "parameters": {"a": {"values": [1, 2]}, "b": {"min": 0.1, "max": 1.0, "distribution": "log_uniform_values"}},
    "command": ["x", "${args}"],
    "run_cap": 3,
}
RECIPE = {"name": "tiny", "stages": [{"name": "one", "command": "fit --config x"}], "variables": {"a": "b"}}

few = st.text(max_size=12)
odd = st.sampled_from([10**400, "a\u2028b\u0085c", "x" * 3000, "\ud800", "\x00", -0.0, 1e308])
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_subnormal=False), few, odd)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(few, inner, max_size=3), max_leaves=4
)


@st.composite
def changed(draw: st.DrawFn, row: Any) -> Any:
    """A good row with up to three of its values, at any depth, exchanged, dropped or added."""
    row = copy.deepcopy(row)
    for _ in range(draw(st.integers(0, 3))):
        place, holder = row, None
        while isinstance(place, dict | list) and place and draw(st.booleans() if holder is not None else st.just(True)):
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            holder, place = (place, key), place[key]
        if holder is None:
            continue
        (parent, key), deed = holder, draw(st.sampled_from(["exchange", "drop", "add"]))
        if deed == "exchange":
            parent[key] = draw(values)
        elif deed == "drop":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(few)] = draw(values)
    return row


def content(row: Any) -> st.SearchStrategy[bytes]:
    """The bytes of a file: rows that are nearly right, doubled keys, other encodings, half files, noise."""
    lines = st.lists(changed(row).map(lambda one: json.dumps(one, ensure_ascii=True)), max_size=3)
    whole = lines.map(lambda some: "\n".join(some).encode())
    doubled = lines.map(lambda some: "\n".join(one.replace("{", '{"id": 1, "id": 2, ', 1) for one in some).encode())
    torn = st.tuples(whole, st.integers(0, 400)).map(lambda both: both[0][: both[1]])
    other = lines.flatmap(
        lambda some: st.sampled_from(["utf-16", "utf-16-le", "latin-1", "utf-8-sig", "utf-32"]).map(
            lambda name: "\n".join(some).encode(name)
        )
    )
    return st.one_of(whole, doubled, torn, other, whole.map(gzip.compress), st.binary(max_size=200))


def survives(read: Callable[[Path], Any], path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        read(path)
    except PSRError as error:
        assert path.name in str(error) or path.stem in str(error), str(error)
        assert len(str(error)) < 1000, "a message is a line, not the file"


def check_rows(kind: str, path: Path, how: settings) -> None:
    read, row = READERS[kind]

    @how
    @given(content(row))
    def check(data: bytes) -> None:
        survives(read, path, data)

    check()


TRACES = {"traces": lambda path: list(each_trajectory(path)), "journal": lambda path: TraceJournal(path, "M1")}


def check_traces(kind: str, path: Path, how: settings) -> None:
    @how
    @given(content(TRACE))
    def check(data: bytes) -> None:
        survives(TRACES[kind], path, data)

    check()


DOCUMENTS: dict[str, tuple[Callable[[Path], Any], Any]] = {
    "sweep.yaml": (read_sweep, SWEEP),
    "recipe.yaml": (lambda path: read_recipe(path.parent), RECIPE),
    "overlay.yaml": (lambda path: read_overlay(path.parent, "overlay", ["one"]), {"one": {"data.limit": 3}}),
}


def check_documents(name: str, path: Path, how: settings) -> None:
    read, document = DOCUMENTS[name]
    noise = st.one_of(st.binary(max_size=100), st.text(max_size=100).map(lambda text: text.encode(errors="replace")))

    @how
    @given(st.one_of(changed(document).map(lambda one: yaml.dump(one).encode(errors="replace")), noise))
    def check(data: bytes) -> None:
        survives(read, path, data)

    check()


def check_replies(how: settings) -> None:
    prompts = Prompts()
    pieces = st.sampled_from(["[[A]]", "[[B]]", "[[", "Score: 3", "Score: ", "9", "\n", "A"])

    @how
    @given(st.one_of(st.text(), st.lists(pieces).map("".join)))
    def check(reply: str) -> None:
        assert prompts.parse_verdict(reply) in ("A", "B", None)
        assert prompts.parse_score(reply) in (*range(6), None)

    check()


@pytest.mark.parametrize("kind", READERS)
def test_rows(tmp_path: Path, kind: str):
    check_rows(kind, tmp_path / "rows.jsonl", QUICK)


@pytest.mark.parametrize("kind", TRACES)
def test_traces(tmp_path: Path, kind: str):
    check_traces(kind, tmp_path / "traces.jsonl", QUICK)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(tmp_path: Path, name: str):
    check_documents(name, tmp_path / name, QUICK)


def test_verdicts_and_scores():
    check_replies(QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_many_rows(tmp_path: Path, kind: str):
    check_rows(kind, tmp_path / "rows.jsonl", LONG)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRACES)
def test_many_traces(tmp_path: Path, kind: str):
    check_traces(kind, tmp_path / "traces.jsonl", LONG)


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCUMENTS)
def test_many_documents(tmp_path: Path, name: str):
    check_documents(name, tmp_path / name, LONG)


@pytest.mark.slow
def test_many_verdicts_and_scores():
    check_replies(LONG)


def test_a_reader_that_lets_an_error_of_python_through_is_seen(tmp_path: Path):
    with pytest.raises(AttributeError):
        survives(lambda path: json.loads(path.read_bytes()).strip(), tmp_path / "rows.jsonl", b"[]")


def test_a_benchmark_is_read_by_its_name(tmp_path: Path):
    survives(lambda path: read_benchmark(str(path)), tmp_path / "rows.jsonl", b'{"problem": "x"}')
