"""`psr evaluate`: solves benchmarks with models, grades and compares them; resumable."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from psr.bounds import Count, bounded
from psr.commands.search import solve
from psr.engines.base import Engine
from psr.engines.local import LocalEngine
from psr.errors import UsageError
from psr.evaluation.benchmarks import benchmark_label, read_benchmark
from psr.evaluation.comparison import compare_outcomes
from psr.evaluation.outcomes import Row, grade_rows, summarize
from psr.evaluation.statistics import box_remark, in_percent
from psr.files.jsonl import read_json, write_json, write_jsonl
from psr.files.lock import hold
from psr.policy.tokenizer import check_folder, load_tokenizer
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.records import GoldProblem
from psr.search.judges import JudgeSettings
from psr.search.strategies import Means, Method, StrategySettings
from psr.terminal.text import printable

KEY = ("model", "benchmark", "method", "width")
SAMPLED: tuple[Method, ...] = ("majority", "best_of_n", "step", "beam")


@bounded()
def evaluate(
    models: list[Path] | None = None,
    benchmarks: list[str] | None = None,
    out: Path = Path("analysis"),
    methods: list[Method] | None = None,
    widths: list[Count] | None = None,
    strategy: StrategySettings | None = None,
    judge: JudgeSettings | None = None,
    prompts: Prompts | None = None,
    engine: Engine | None = None,
    limit: Count | None = None,
) -> None:
    """Evaluate policies on benchmarks: accuracies with their intervals, and those of the gaps between the policies.

    Started again, it runs only what is missing. Problems without a reference answer are listed but not counted.

    Args:
        models: Hugging Face folders of the policies; the later ones are compared with the first.
        benchmarks: files (.jsonl or .parquet with `id`, `problem`, `answer`) or names: gsm8k-test, math-test, math500,
            gaokao2023en, olympiadbench, aime2024, amc2023, svamp, asdiv, loaded by `datasets`.
        out: folder to write: evaluation.json, comparison.json, and below solutions/ a line per problem with the
            solution (<method>-<width>.jsonl) and one with its outcome (<method>-<width>.graded.jsonl).
        methods: greedy (the default); majority, which gives maj@k and avg@k; best_of_n, step, beam: as in psr search.
        widths: solutions, or candidates per step, of the methods that sample; several are evaluated one by one;
            [strategy.width] if not given.
        strategy: how problems are solved.
        judge: how the policy judges, for the methods that need a judge.
        prompts: templates and step format.
        engine: what generates and judges; in this process if not given.
        limit: only this many problems of each benchmark, from the first.
    """
    if not models or not benchmarks:
        raise UsageError("psr evaluate needs --models [FOLDER, ...] and --benchmarks [FILE or name, ...]")
    sets = {benchmark_label(name): read_benchmark(name, limit) for name in benchmarks}
    if len(sets) < len(benchmarks):
        raise UsageError(f"--benchmarks {benchmarks}: two of them have the same name, {', '.join(sets)}")
    folders = {Path(model).name: check_folder(model) for model in models}
    if len(folders) < len(models):
        raise UsageError(f"--models {[str(model) for model in models]}: the folders' names must differ")
    engine, judge, strategy = engine or LocalEngine(), judge or JudgeSettings(), strategy or StrategySettings()
    how = Evaluation(engine, prompts or Prompts(), judge, strategy, out, methods or ["greedy"], widths)
    results = asyncio.run(how.run(folders, sets))
    console = Console()
    console.print(results_table(results))
    for line in dict.fromkeys(line for row in results for line in remarks(row)):
        console.print(printable(line), markup=False)
    if comparisons := compare_with_first(out, results, list(folders)):
        console.print(comparison_table(comparisons))


def remarks(result: Row) -> list[str]:
    """Notes on a benchmark's problems that belong beside the numbers."""
    found = []
    if result["no_gold"]:
        found.append(f"{result['benchmark']}: no reference answer, not counted: {', '.join(result['no_gold'])}")
    if result["too_long"]:
        where = f"{result['benchmark']}, {result['model']}: does not fit into the model's context"
        found.append(f"{where}, counted as wrong: {', '.join(result['too_long'])}")
    who = f"{result['benchmark']}, {result['model']}, {result['method']} {result['width']}"
    return [*found, *filter(None, [box_remark(who, result["no_box"])])]


@dataclass(frozen=True)
class Evaluation:
    """How models are evaluated, and where the results are written."""

    engine: Engine
    prompts: Prompts
    judge: JudgeSettings
    strategy: StrategySettings
    out: Path
    methods: Sequence[Method]
    widths: Sequence[int] | None = None

    async def run(self, models: dict[str, Path], sets: dict[str, list[GoldProblem]]) -> list[Row]:
        """The results of every model, benchmark, method and width, each written to evaluation.json once it is there."""
        results = []
        try:
            for name, folder in models.items():
                for label, problems in sets.items():
                    for method, width in self.tries():
                        figures = await self.one(name, folder, label, problems, method, width)
                        put_result(self.out / "evaluation.json", figures)
                        results.append(figures)
        finally:
            await self.engine.close()
        return results

    def tries(self) -> list[tuple[Method, int]]:
        widths = self.widths or [self.strategy.width]
        return [
            (method, width)
            for method in dict.fromkeys(self.methods)
            for width in (widths if method in SAMPLED else [1])
        ]

    async def one(
        self, name: str, folder: Path, label: str, problems: list[GoldProblem], method: Method, width: int
    ) -> Row:
        encoder = Encoder(load_tokenizer(folder), self.prompts)
        means = Means(self.engine, encoder, self.judge, replace(self.strategy, width=width))
        how = {"model": str(folder.resolve()), "strategy": asdict(means.settings), "judge": asdict(self.judge)}
        path = outcome_path(self.out, {"model": name, "benchmark": label, "method": method, "width": width})
        solutions = path.with_name(f"{method}-{width}.jsonl")
        rows = await solve(method, [problem.without_answer() for problem in problems], means, solutions, how)
        outcomes = await asyncio.to_thread(grade_rows, rows, problems, encoder)
        write_jsonl(path, outcomes)
        return {"model": name, "benchmark": label, "method": method, "width": width, **summarize(outcomes)}


def outcome_path(out: Path, result: Row) -> Path:
    name = f"{result['method']}-{result['width']}.graded.jsonl"
    return out / "solutions" / result["model"] / result["benchmark"] / name


def put_result(path: Path, figures: Row) -> None:
    """Add or replace the entry of this model, benchmark, method and width in evaluation.json."""
    with hold(path.parent, wait=True):  # models may be evaluated at the same time
        others = [row for row in read_json(path).get("results", []) if any(row[key] != figures[key] for key in KEY)]
        write_json(path, {"schema": 1, "results": [*others, figures]})


def compare_with_first(out: Path, results: Sequence[Row], models: Sequence[str]) -> list[Row]:
    """Every later model against the first, on the same benchmark by the same method; also as comparison.json."""
    comparisons = []
    for row in results:
        base = {**row, "model": models[0]}
        if row["model"] != models[0] and row["graded"]:
            compared = compare_outcomes(outcome_path(out, base), outcome_path(out, row))
            names = {"a": models[0], "b": row["model"], **{key: row[key] for key in KEY[1:]}}
            comparisons.append({**names, **compared})
    if comparisons:
        write_json(out / "comparison.json", {"schema": 1, "comparisons": comparisons})
    return comparisons


def results_table(results: Sequence[Row]) -> Table:
    shares = ("accuracy %\n(95%)", "avg %\n(95%)", "any %", "finished\n%", "no box\n%")
    table = Table("model", "benchmark", "method", "graded", *shares, "steps", "tokens", box=SIMPLE_HEAD)
    for row in results:
        method = row["method"] if row["method"] not in SAMPLED else f"{row['method']} {row['width']}"
        table.add_row(
            *(row["model"], row["benchmark"], method, f"{row['graded']}/{row['problems']}"),
            in_percent(row["accuracy"], (row["accuracy_low"], row["accuracy_high"]) if row["graded"] else None),
            in_percent(row["average"], (row["average_low"], row["average_high"])) if "average" in row else "-",
            *(in_percent(row.get("any")), in_percent(row["finished"]), in_percent(row["no_box"])),
            "-" if row["steps"] is None else f"{row['steps']:.2f}",
            "-" if row["generated_tokens"] is None else f"{row['generated_tokens']:.0f}",
        )
    return table


def comparison_table(comparisons: Sequence[dict[str, Any]]) -> Table:
    names = ("models", "benchmark", "method", "points", "interval", "only the\nfirst", "only the\nsecond")
    table = Table(*names, box=SIMPLE_HEAD)
    for row in comparisons:
        interval = f"{100 * row['low']:+.1f} .. {100 * row['high']:+.1f} ({100 * row['level']:.0f}%)"
        who = (f"{row['b']} - {row['a']}", row["benchmark"], f"{row['method']} {row['width']}")
        table.add_row(*who, f"{100 * row['difference']:+.1f}", interval, str(row["only_a"]), str(row["only_b"]))
    return table
