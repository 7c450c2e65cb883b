"""Grading's workers: no prediction, however hostile, costs more than its own point. And the box is what counts."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from psr.answers import extract_boxed
from psr.evaluation import grading_workers
from tests.evaluation.pairs import grade_many

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
# Small enough to pass every cap, and math-verify does not return from it.
ENDLESS = r"\boxed{\binom{10^{9}}{5\cdot 10^{8}}}"


def box(answer: str) -> str:
    return rf"Therefore the answer is $\boxed{{{answer}}}$."


def seconds() -> float:
    """Of processor time, of this process and of its workers, alive or ended: what else runs makes no difference."""
    alive = [
        Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split() for worker in grading_workers._alive
    ]
    ticks = sum(int(fields[11]) + int(fields[12]) for fields in alive)
    return sum(os.times()[:4]) + ticks / os.sysconf("SC_CLK_TCK")


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def has_ended(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"  # a zombie of a dead parent's


def test_without_a_box_nothing_is_right() -> None:
    assert grade_many([("The answer is 72.", "72"), ("72", "72"), ("", "72"), (r"\boxed 72", "72")]) == [False] * 4


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {7}", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{}", ""),
        ("no box", None),
        ("", None),
        (r"\boxed{{1}", None),
        (r"\boxed{1} cut off at \boxed{2", None),
    ],
)
def test_the_last_box_is_extracted_by_its_braces(text: str, content: str | None) -> None:
    assert extract_boxed(text) == content


@pytest.mark.parametrize(
    "prediction",
    [
        pytest.param("", id="empty"),
        pytest.param(r"\boxed{", id="unbalanced"),
        pytest.param(box("{" * 10**4 + "72" + "}" * 10**4), id="10,000 nested braces"),
        pytest.param(box("(" * 200 + "72" + ")" * 200), id="200 nested parentheses"),
        pytest.param(r"\boxed{" * 10**5, id="100,000 open boxes"),
        pytest.param(r"\boxed{" * 10**5 + "}" * 10**5, id="100,000 nested boxes"),
        pytest.param(r"\boxed" + " " * 10**6, id="1 MB of spaces"),
        pytest.param("\\" * 10**6, id="1 MB of backslashes"),
        pytest.param(box("9" * 10**6), id="1 MB of digits"),
        pytest.param(box("9" * 400), id="400 digits"),
        pytest.param(box("9^9^9"), id="tower"),
        pytest.param(box("9^{9^{9}}"), id="braced tower"),
        pytest.param(box("9^(9^9)"), id="bracketed tower"),
        pytest.param(box("10^{-9^9}"), id="negative tower"),
        pytest.param(box("100000000!"), id="factorial"),
        pytest.param(box("((9^9)!)!"), id="factorial of a factorial"),
        pytest.param(box(r"\frac{1}{0}"), id="division by zero"),
        pytest.param(box("\ud800\x00\n"), id="not even text"),
        pytest.param(ENDLESS, id="endless in math-verify"),
    ],
)
def test_hostile_predictions_are_wrong_in_time_and_alone(prediction: str) -> None:
    # Starting both workers is not what is timed: of several pairs at once, one finds no idle worker and starts another.
    # But where one is stopped, another may start in its place, which takes about a second.
    grade_many([(box(rf"\sqrt{{{n * n}}}"), str(n)) for n in range(2, 10)])
    started = seconds()
    results = grade_many([(box(r"\sqrt{64}"), "8"), (prediction, "72"), (box(r"\sqrt{81}"), "9")], timeout=1.0)
    assert results == [True, False, True]
    assert seconds() - started < 3.0


def test_hangs_cost_only_themselves_and_order_is_kept() -> None:
    pairs = [(box(rf"\sqrt{{{n * n}}}"), str(n if n % 3 else n + 1)) for n in range(2, 30)]
    expected = [n % 3 != 0 for n in range(2, 30)]
    for place in (11, 0):
        pairs.insert(place, (ENDLESS, str(place)))
        expected.insert(place, False)
    assert grade_many(pairs, timeout=0.3, workers=1) == expected
    assert grade_many(pairs, timeout=0.3, workers=2) == expected


def test_repeated_pairs_are_verified_once() -> None:
    started = seconds()
    assert grade_many([(ENDLESS, "72")] * 50, timeout=0.5) == [False] * 50
    assert seconds() - started < 1.5


def test_the_start_of_a_worker_is_not_counted() -> None:
    grading_workers._stop_workers()
    assert grade_many([(box(r"\sqrt{64}"), "8")], timeout=0.25) == [True]


def test_a_worker_killed_while_idle_costs_nothing() -> None:
    grade_many([(box(r"\sqrt{64}"), "8")])
    for worker in grading_workers._idle:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    assert grade_many([(box(rf"\sqrt{{{n * n}}}"), str(n)) for n in range(2, 6)]) == [True] * 4


def test_a_worker_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    grading_workers._stop_workers()
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(RuntimeError, match="ended while starting"):
        grade_many([(box(r"\sqrt{64}"), "8")])


@pytest.mark.parametrize("setting", [{"timeout": 0.0}, {"timeout": float("inf")}, {"workers": 0}])
def test_settings_out_of_range_are_named(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        grade_many([], **setting)


def test_works_in_many_threads_at_once_within_the_bound_of_workers() -> None:
    results: dict[int, list[bool]] = {}

    def grade(number: int) -> None:
        results[number] = grade_many([(box(rf"\sqrt{{{number**2}}}"), "4"), (ENDLESS, "4")], timeout=0.5, workers=2)

    threads = [threading.Thread(target=grade, args=(number,)) for number in range(2, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [number == 4, False] for number in range(2, 5)}
    assert len(grading_workers._alive) <= 2


def test_works_inside_a_running_event_loop() -> None:
    async def grade() -> list[bool]:
        direct = grade_many([(box(r"\sqrt{64}"), "8")])
        return direct + await asyncio.to_thread(grade_many, [(box(r"\sqrt{81}"), "9")])

    assert asyncio.run(grade()) == [True, True]


def test_importing_it_loads_nothing_heavy() -> None:
    script = "import sys, psr.evaluation.grading; print({'torch', 'numpy', 'sympy', 'transformers'} & set(sys.modules))"
    assert run_script(script).stdout == "set()\n"


def test_no_worker_outlives_the_interpreter() -> None:
    finished = run_script(f"""if True:
        import threading, time
        from psr.evaluation import grading_workers
        from tests.evaluation.pairs import grade_many
        pairs = [(r"\\boxed{{\\sqrt{{4}}}}", "2"), ({ENDLESS!r}, "2")]
        print(grade_many(pairs, timeout=0.5))
        busy = threading.Thread(target=grade_many, args=(pairs,), kwargs=dict(timeout=1.0))
        busy.daemon = True
        busy.start()
        time.sleep(0.3)
        print(*(worker.pid for worker in grading_workers._alive))
    """)
    graded, pids = finished.stdout.splitlines()
    assert graded == "[True, False]", finished.stderr
    assert pids.split() and all(has_ended(int(pid)) for pid in pids.split())


def test_workers_of_a_killed_process_end_by_themselves() -> None:
    finished = run_script(f"""if True:
        import os, signal, threading, time
        from psr.evaluation import grading_workers
        from tests.evaluation.pairs import grade_many
        grade_many([(r"\\boxed{{\\sqrt{{4}}}}", "2"), (r"\\boxed{{\\sqrt{{9}}}}", "3")])
        threading.Thread(target=grade_many, args=([({ENDLESS!r}, "2")],)).start()
        time.sleep(0.5)
        print(*(worker.pid for worker in grading_workers._alive), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    pids = [int(pid) for pid in finished.stdout.split()]
    assert pids, finished.stderr
    deadline = time.monotonic() + 10.0
    while not all(map(has_ended, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert all(map(has_ended, pids))


def test_a_forked_child_gets_workers_of_its_own() -> None:
    finished = run_script("""if True:
        import multiprocessing
        from psr.evaluation import grading_workers
        from tests.evaluation.pairs import grade_many

        def grade():
            return grade_many([(rf"\\\\boxed{{\\\\sqrt{{{n * n}}}}}", "7") for n in range(2, 12)])

        grade()
        before = {worker.pid for worker in grading_workers._alive}
        with multiprocessing.get_context("fork").Pool(1) as pool:
            running = pool.apply_async(grade)
            print(grade() == running.get(30) == [n == 7 for n in range(2, 12)])
        print(before == {worker.pid for worker in grading_workers._alive})
    """)
    assert finished.stdout.split() == ["True", "True"], finished.stderr
