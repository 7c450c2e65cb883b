"""Decides whether a solution's boxed answer equals the gold answer, whatever the solution contains.

Plain text and numbers are compared right here; everything else goes to math-verify inside worker processes, because a
hostile answer (9^9^9) can occupy a computer algebra system for ever and only a process can be stopped. The module knows
nothing of problems, prompts or engines, and this file is also the program that the workers run: importing it must stay
cheap, so at the top it imports nothing outside the standard library.
"""

import atexit
import contextlib
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction

logger = logging.getLogger(__name__)

MAX_LENGTH = 512  # characters of an answer; the longest gold answer of the usual benchmarks has 204
MAX_DEPTH = 32  # nested brackets; the parser's recursion and its time grow with each level
MAX_DIGITS = 200  # of one number
MAX_EXPONENT = 10_000  # of a power of numbers, and of what a factorial is taken of
WORKER_MEMORY = 2 << 30  # bytes of address space; a worker needs about 0.2 GiB of it

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is text, not structure
_SPACING = re.compile(r"(?<!\\)\\(?:[!,;:]|left(?![a-zA-Z])|right(?![a-zA-Z]))")
_LOOSE_SPACE = re.compile(r"(?<![\w,]) | (?!\w)")  # "1 2" is not "12", and "1, 234" is a list where "1,234" is a number
_DECIMAL = re.compile(r"(?:\\?\$)?([+-]?)(?:\\?\$)?([0-9]+|[1-9][0-9]{0,2}(?:,[0-9]{3})+|(?=\.[0-9]))(\.[0-9]*)?\$?")
_FRACTION = re.compile(r"\$?([+-]?)(?:\\frac\{(-?[0-9]+)\}\{(-?[0-9]+)\}|([0-9]+)/([0-9]+))\$?")
_TOWER = re.compile(r"(?:\^\s*[+-]?\s*[0-9]+\s*)+")
_FACTORIAL = re.compile(r"([0-9]+)\s*!")


def grade_many(pairs: Sequence[tuple[str, str]], *, timeout: float = 2.0, workers: int = 2) -> list[bool]:
    r"""Grades (prediction text, gold answer) pairs; the results are in the order of the pairs.

    Only the last `\boxed{}` of a prediction counts, and a prediction without one is wrong. The gold answer is bare
    ("72", "\frac{1}{2}") or in a box itself; nothing equals an empty gold answer. May be called from any thread, also
    several at once, and blocks until everything is graded: in a coroutine, use `asyncio.to_thread`.

    Args:
        pairs: what to grade
        timeout: seconds of wall time that one pair may take in a worker; a pair that needs longer is wrong
        workers: the most worker processes alive at a time; they start when first needed and stay until exit

    Raises:
        ValueError: `timeout` is not positive and finite, or `workers` is below 1.
        RuntimeError: a worker process cannot start, for instance because math-verify is not installed.
    """
    answers = [extract_boxed(prediction) for prediction, _ in pairs]
    golds = [extract_boxed(gold) for _, gold in pairs]
    truths = [gold if boxed is None else boxed for (_, gold), boxed in zip(pairs, golds, strict=True)]
    cases = [
        None if answer is None else Case((answer.strip(),), (truth.strip(),))
        for answer, truth in zip(answers, truths, strict=True)
    ]
    return grade_cases(cases, timeout=timeout, workers=workers)


@dataclass(frozen=True)
class Case:
    """Values that were given against the values asked for: right if they are the same in some order.

    Args:
        answers: as they stand in the box, without it.
        golds: each to be met by one of the answers.
        tolerance: numbers may differ by so much.
    """

    answers: tuple[str, ...]
    golds: tuple[str, ...]
    tolerance: float | None = None


def grade_cases(cases: Sequence[Case | None], *, timeout: float = 2.0, workers: int = 2) -> list[bool]:
    """As `grade_many`, for answers that are out of their boxes already; None is an answer that is missing."""
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout must be a positive number of seconds, got {timeout}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    results = [False] * len(cases)
    hard: dict[Case, list[int]] = {}  # samples of one problem repeat answers: each is verified once
    for index, case in enumerate(cases):
        verdict = False if case is None else _settled(case)
        if case is not None and verdict is None:
            hard.setdefault(case, []).append(index)
        else:
            results[index] = bool(verdict)
    if hard:
        with ThreadPoolExecutor(min(workers, len(hard)), thread_name_prefix="grading") as threads:
            verdicts = threads.map(lambda case: _verify(case, timeout=timeout, workers=workers), hard)
            for indices, verdict in zip(hard.values(), verdicts, strict=True):
                for index in indices:
                    results[index] = verdict
    return results


def extract_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}` or `\fbox{...}`; None when there is none or its braces never close."""
    start = None
    for box in _BOX.finditer(text):
        start = box.end()
    if start is None:
        return None
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return text[start : brace.start()]
    return None


def _settled(case: Case) -> bool | None:
    """The verdict on a case where it needs no algebra; None where math-verify has to decide."""
    if len(case.answers) != len(case.golds):
        return False
    table = [[_compare(answer, gold, case.tolerance) for answer in case.answers] for gold in case.golds]
    if any(all(verdict is False for verdict in row) for row in table):
        return False
    return _matched([[verdict is True for verdict in row] for row in table]) or None


def _matched(equal: Sequence[Sequence[bool]]) -> bool:
    """Whether every row can have a column of its own where it is True (bipartite matching by augmenting paths).

    The first that fits would not do: within a tolerance, what equals the same value need not be equal.
    """
    owners: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fits in enumerate(equal[row]):
            if fits and column not in tried:
                tried.add(column)
                if column not in owners or place(owners[column], tried):
                    owners[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(equal)))


def _compare(answer: str, gold: str, tolerance: float | None = None) -> bool | None:
    """The verdict on one value where it needs no algebra; None where math-verify has to decide."""
    if not answer or not gold or len(answer) > MAX_LENGTH:
        return False
    answer, gold = _normalize(answer), _normalize(gold)
    if answer == gold:
        return True
    left, right = _number(answer), _number(gold)
    if left is not None and right is not None:
        if left == right or (tolerance is not None and abs(left - right) <= Fraction(str(tolerance))):
            return True
        # Different integers cannot be rescued by rounding (which makes 0.333333 equal 1/3), and without a comma they
        # cannot be lists: the common wrong answer of a word problem never reaches a worker.
        if tolerance is not None or (left.denominator == right.denominator == 1 and "," not in answer + gold):
            return False
    return False if _is_excessive(answer) else None


def _normalize(text: str) -> str:
    text = _SPACING.sub("", text).replace("{,}", ",").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return _LOOSE_SPACE.sub("", " ".join(text.split()))


def _number(text: str) -> Fraction | None:
    if len(text) > MAX_DIGITS:
        return None
    if match := _DECIMAL.fullmatch(text):
        sign, whole, decimals = match.groups(default="")
        return Fraction(f"{sign}{whole.replace(',', '') or '0'}{decimals.rstrip('.')}")
    if match := _FRACTION.fullmatch(text):
        sign, top, bottom, plain_top, plain_bottom = match.groups(default="")
        denominator = int(bottom or plain_bottom)
        return Fraction(int(sign + "1") * int(top or plain_top), denominator) if denominator else None
    return None


def _is_excessive(answer: str) -> bool:
    """Whether the answer is certain to cost more than it can be worth. What slips through still meets the timeout."""
    depth = 0
    for character in answer:
        depth += (character in "([{") - (character in ")]}")
        if depth > MAX_DEPTH:
            return True
    if re.search(rf"[0-9]{{{MAX_DIGITS + 1}}}|!\s*!\s*!", answer):
        return True
    # Opening brackets and closing braces say nothing about the size: 9^{9^{9}} and 9^(9^9) both read 9^9^9.
    flat = re.sub(r"[{}(]", " ", answer)
    if any(int(digits) > MAX_EXPONENT for digits in _FACTORIAL.findall(flat)):
        return True
    for tower in _TOWER.findall(flat):
        exponent = 1
        for base in map(int, reversed(re.findall(r"[0-9]+", tower))):
            # The power is at least 2 to this product: computing it first would be what this check is to prevent.
            if (base.bit_length() - 1) * exponent > MAX_EXPONENT.bit_length():
                return True
            exponent = base**exponent
            if exponent > MAX_EXPONENT:
                return True
    return False


# Worker processes. Each serves one request at a time, a line of JSON, and replies with a line, "true" or "false". It
# sets an alarm for itself before each request and leaves the signal's default action in place, so that the kernel ends
# it on time in the midst of any computation, even when the process that asked is gone by then.

_Worker = subprocess.Popen[str]
_changed = threading.Condition()  # guards the two below; notified when a worker comes free or is gone
_idle: list[_Worker] = []
_alive: set[_Worker] = set()


def _verify(case: Case, *, timeout: float, workers: int) -> bool:
    request = json.dumps({**asdict(case), "timeout": timeout}) + "\n"
    while True:
        worker = _lease(workers)
        try:
            reply = _exchange(worker, request)
        except BrokenPipeError:  # it died while idle, which is no fault of this request
            _discard(worker)
            continue
        if reply in ("true\n", "false\n"):
            with _changed:
                _idle.append(worker)
                _changed.notify()
            return reply == "true\n"
        _discard(worker)
        cause = f"took longer than {timeout} s" if worker.returncode == -signal.SIGALRM else "crashed the worker"
        logger.info("graded as wrong, comparing with %r %s: %r", case.golds, cause, case.answers)
        return False


def _lease(workers: int) -> _Worker:
    with _changed:
        _changed.wait_for(lambda: _idle or len(_alive) < workers)
        if _idle:
            return _idle.pop()
        # A fresh interpreter on this very file: nothing is forked from a process that may have threads, and the worker
        # loads neither the caller's main module nor torch. -P keeps this folder, whose `statistics` is not the standard
        # library's, off the module path.
        command = [sys.executable, "-P", __file__]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
        _alive.add(worker)
    if _exchange(worker, "") != "ready\n":
        _discard(worker)
        raise RuntimeError(f"a grading worker ended while starting, see its error output above: {' '.join(command)}")
    return worker


def _exchange(worker: _Worker, request: str) -> str:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(request)
    worker.stdin.flush()
    return worker.stdout.readline()


def _discard(worker: _Worker) -> None:
    worker.kill()
    with contextlib.suppress(BrokenPipeError), worker:  # closes its pipes and waits for its end
        pass
    with _changed:
        _alive.discard(worker)
        _changed.notify()


@atexit.register
def _stop_workers() -> None:
    for worker in list(_alive):
        _discard(worker)
    _idle.clear()


def _forget_workers() -> None:
    """A forked child must not talk to its parent's workers, nor wait for a lock that a thread of the parent held."""
    global _changed
    _changed = threading.Condition()
    _idle.clear()
    _alive.clear()


os.register_at_fork(after_in_child=_forget_workers)


def _serve() -> None:
    """What a worker runs: answers requests from standard input until that closes."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # a parser's complaint on standard output would pass for a reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked, which then stops its workers
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    for limited, amount in ((resource.RLIMIT_AS, WORKER_MEMORY), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # some systems have no such limit; the timeout still holds
            resource.setrlimit(limited, (amount, resource.getrlimit(limited)[1]))

    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable()  # math-verify warns that its own timeouts, which need the alarm too, are off
    # LaTeX only: the plain-text extraction of math-verify takes the last number of any sentence for the answer.
    targets = [LatexExtractionConfig(boxed_match_priority=0)]

    def equal(answer: str, gold: str, tolerance: float | None) -> bool:
        parsed = [parse(rf"\boxed{{{text}}}", targets, parsing_timeout=None) for text in (gold, answer)]
        if tolerance is not None and all(parsed):
            with contextlib.suppress(AttributeError, TypeError, ValueError):  # not numbers: they are compared as usual
                return abs(float(parsed[0][0].evalf()) - float(parsed[1][0].evalf())) <= tolerance
        return bool(verify(*parsed, timeout_seconds=None))

    def alike(answers: list[str], golds: list[str], tolerance: float | None) -> bool:
        return _matched([[equal(answer, gold, tolerance) for answer in answers] for gold in golds])

    equal(r"\frac{1}{2}", "0.5", None)  # builds the parser's tables, so that the first request does not pay for them
    print("ready", file=replies, flush=True)
    os.dup2(silence, 2)
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["timeout"])
        try:
            verdict = alike(request["answers"], request["golds"], request["tolerance"])
        except Exception:  # an answer that no parser can take is a wrong answer
            verdict = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(verdict), file=replies, flush=True)


if __name__ == "__main__":
    _serve()
