"""`psr search`: solve problems by test-time search with a policy that judges itself; resumable."""

import asyncio
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from psr.answers import extract_boxed
from psr.engines.base import Engine, PromptTooLong
from psr.engines.local import LocalEngine
from psr.engines.meter import Meter
from psr.errors import UsageError
from psr.evaluation.grading import grade_many
from psr.evaluation.statistics import standard_error
from psr.files.jsonl import DataError, append_row, read_appended, read_jsonl, write_json
from psr.files.lock import hold
from psr.files.problems import read_problems
from psr.policy.tokenizer import check_folder, load_tokenizer
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.records import Problem
from psr.search.judges import JudgeSettings
from psr.search.prm import PRM, PRMJudge
from psr.search.run import for_each
from psr.search.strategies import STRATEGIES, Means, Method, Solution, StrategySettings

Row = dict[str, Any]
DEFAULT_METHODS: list[Method] = ["step"]


def search(
    model: Path | None = None,
    problems: Path | None = None,
    out: Path = Path("solved"),
    methods: list[Method] | None = None,
    width: int = 6,
    beam: int = 2,
    temperature: float = 0.5,
    top_p: float = 0.95,
    max_tokens: int = 1024,
    max_step_tokens: int = 256,
    max_steps: int = 20,
    limit: int | None = None,
    seed: int = 0,
    concurrency: int = 512,
    judge: JudgeSettings | None = None,
    prompts: Prompts | None = None,
    engine: Engine | None = None,
    prm: PRM | None = None,
) -> None:
    """Solve problems by test-time search with self-judging; started again, it solves only what is missing.

    Args:
        model: Hugging Face folder of the policy.
        problems: JSONL with `id` and `problem`; where all rows have an `answer`, solutions are graded after the search.
        out: folder to write: <method>.jsonl with a line per problem (solution, answer, tokens, trace), summary.json.
        methods: of greedy, majority (vote on the boxed answer), best_of_n (self-judged tournament of solutions), step
            (self-judged step search) and beam (the same with several partial solutions); [step] if not given.
        width: solutions or candidates per step to choose from.
        beam: partial solutions that `beam` keeps.
        temperature: sampling temperature; `greedy` has none.
        top_p: nucleus of what is sampled.
        max_tokens: a whole solution is cut off at this many tokens.
        max_step_tokens: a step is cut off at this many tokens.
        max_steps: steps of a solution.
        limit: only this many problems, from the first.
        seed: seed of the sampling.
        concurrency: most problems under way at the same time.
        judge: who judges, "self" or "prm", and how.
        prompts: templates and step format.
        engine: what generates and judges; in this process if not given.
        prm: process reward model, for the judge of kind "prm" only; its tokens are not among those counted.
    """
    if model is None or problems is None:
        raise UsageError("psr search needs --model FOLDER and --problems FILE")
    judge = judge or JudgeSettings()
    if judge.kind not in ("self", "prm") or (judge.kind == "prm") != (prm is not None):
        raise UsageError(
            f"judge.kind is {judge.kind!r} and prm is {'not ' * (prm is None)}given: psr search lets the policy judge "
            "itself (self, and no prm), or a process reward model (prm, with its model and engine)"
        )
    settings = StrategySettings(width, beam, temperature, top_p, max_tokens, max_step_tokens, max_steps, seed)
    encoder = Encoder(load_tokenizer(check_folder(model)), prompts or Prompts())
    engine = engine or LocalEngine()
    means = Means(engine, encoder, judge, settings, PRMJudge(prm, judge, prm.margin) if prm else None)
    asked = read_problems(problems, limit)
    chosen: list[Method] = list(dict.fromkeys(methods or DEFAULT_METHODS))
    how = {"model": str(model.resolve()), "strategy": asdict(settings), "judge": asdict(judge)}
    if prm is not None:
        how["prm"] = {"model": str(prm.model.resolve()), "template": prm.template, "margin": prm.margin}

    async def solve_all() -> dict[Method, list[Row]]:
        try:
            if prm is not None:
                await prm.load()
            return {method: await solve(method, asked, means, out / f"{method}.jsonl", how) for method in chosen}
        finally:
            await engine.close()
            if prm is not None:
                await prm.engine.close()

    solved = asyncio.run(solve_all())
    answers = read_answers(problems)
    figures = [summary(method, rows, answers) for method, rows in solved.items()]
    write_json(out / "summary.json", {**how, "methods": figures})
    Console().print(table(figures))


async def solve(method: Method, problems: list[Problem], means: Means, path: Path, how: dict[str, Any]) -> list[Row]:
    """A row for every problem: those already in `path`, and the others, solved now and appended one by one."""
    with hold(path.parent):
        return await solve_missing(method, problems, means, path, how)


async def solve_missing(
    method: Method, problems: list[Problem], means: Means, path: Path, how: dict[str, Any]
) -> list[Row]:
    """The same, while no other process appends to `path`."""
    done = {row["id"]: row for row in read_appended(path)}
    if any(row["how"] != how for row in done.values()):
        raise DataError(f"{path} was written by another model or with other settings: give another --out")
    missing = [problem for problem in problems if problem.id not in done]
    if missing and means.engine.served_version != how["model"]:
        await means.engine.load_weights(Path(how["model"]), how["model"])

    async def one(problem: Problem) -> Row:
        meter = Meter(means.engine)
        try:
            solution = await STRATEGIES[method](problem, replace(means, engine=meter))
        except PromptTooLong as error:  # unsolved; the others go on
            solution = Solution("", False, {"too_long": str(error)})
        return {
            "id": problem.id,
            "problem": problem.problem,
            "answer": extract_boxed(solution.text) if solution.finished else None,
            "solution": solution.text,
            "finished": solution.finished,
            "prompt_tokens": meter.prompt_tokens,
            "generated_tokens": meter.generated_tokens,
            "how": how,
            "trace": solution.trace,
        }

    rows = await for_each(missing, one, method, on_result=lambda row: append_row(path, row))
    done.update({row["id"]: row for row in rows})
    return [done[problem.id] for problem in problems]


def read_answers(path: Path) -> dict[str, str]:
    """The reference answers by problem, of the rows that have one. Called when all solutions are there."""
    return {str(row["id"]): str(row["answer"]) for row in read_jsonl(path, ["id"], ["answer"]) if "answer" in row}


def summary(method: Method, rows: list[Row], answers: dict[str, str]) -> Row:
    """The results of a method and its cost per problem; accuracy if all answers are known."""
    figures: Row = {"method": method, "problems": len(rows)}
    for name in ("finished", "prompt_tokens", "generated_tokens"):
        figures[name] = sum(row[name] for row in rows) / len(rows)
    if all(row["id"] in answers for row in rows):
        pairs = [(row["solution"] if row["finished"] else "", answers[row["id"]]) for row in rows]
        correct = grade_many(pairs)
        figures["accuracy"], figures["accuracy_stderr"] = sum(correct) / len(rows), standard_error(correct)
    return figures


def table(figures: list[Row]) -> Table:
    out = Table("method", "accuracy %", "finished %", "tokens generated", "tokens of prompts", title="per problem")
    for row in figures:
        accuracy = "-"
        if "accuracy" in row:
            accuracy = f"{100 * row['accuracy']:.1f} ± {100 * row['accuracy_stderr']:.1f}"
        spent = [f"{row[name]:.0f}" for name in ("generated_tokens", "prompt_tokens")]
        out.add_row(row["method"], accuracy, f"{100 * row['finished']:.1f}", *spent)
    return out
