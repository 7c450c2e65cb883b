"""`psr analyse`: the paper's tables and figures for your own run, as JSON and on the terminal.

A run's models are queried with the settings of the run. Every command can be stopped and resumed.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from psr.bounds import Count, CountOrNone, OpenShare, Positive, Seed, bounded
from psr.commands.analysis_output import JUDGE_COLUMNS, SCORING_COLUMNS, STEP_COLUMNS, finish
from psr.commands.evaluate import Evaluation, Row, compare_with_first, comparison_table, results_table
from psr.engines.base import Engine, PromptTooLong
from psr.errors import UsageError
from psr.evaluation import distribution as figure2
from psr.evaluation.benchmarks import benchmark_label, read_benchmark
from psr.evaluation.comparison import compare_outcomes
from psr.evaluation.distribution import SHIPPED
from psr.evaluation.judging import judge_figures, judge_shots, judged, judged_where_it_fits, length_bias
from psr.evaluation.run_texts import texts_of
from psr.evaluation.scoring_study import study
from psr.evaluation.statistics import in_percent, mean_interval, standard_error_of_mean
from psr.policy.tokenizer import load_tokenizer
from psr.prompts.encoder import Encoder
from psr.prompts.judged import read_pairs
from psr.run.settings import RunSettings, read_run_settings
from psr.search.strategies import Method, StrategySettings

STEP_FIGURES = (
    *("solutions", "steps", "steps_stderr", "step_tokens", "step_characters"),
    *("solution_tokens", "histogram"),
)


@bounded()
def compare(a: Path, b: Path, level: OpenShare = 0.95) -> None:
    """Compare two files of outcomes on the same problems: the gap in accuracy, with a paired bootstrap interval.

    Args:
        a: a .graded.jsonl file that `psr evaluate` wrote.
        b: another one.
        level: coverage of the bootstrap interval.
    """
    row = {"a": str(a), "b": str(b), "benchmark": "-", "method": "-", "width": "", **compare_outcomes(a, b, level)}
    Console().print(comparison_table([row]))


@bounded()
def judge(
    run: Path,
    models: list[str] | None = None,
    shots: CountOrNone = 3,
    limit: Count | None = None,
    engine: Engine | None = None,
) -> None:
    """Measure how well the models judge held-out pairs, in both orders (the paper's Table 3): analysis/judge.json.

    Args:
        run: run directory.
        models: names such as M1; all models of the run if not given.
        shots: few-shot examples for M0, which has not learnt to judge: judged pairs of the training data, as many as
            fit into its context.
        limit: only this many pairs of each file, from the first.
        engine: what the models are served by; the run's own if not given.
    """
    settings = read_run_settings(run, engine)
    rows = [row for path in settings.judge_pairs for row in read_pairs(path, limit)]
    examples = [row for path in settings.eft for row in read_pairs(path, shots)][:shots]

    async def one(name: str, encoder: Encoder) -> list[Row]:
        untaught = name.partition("-")[0] == "M0" and settings.judge.form == "pairwise"
        given, used, too_long = await judged_with(len(examples) if untaught else 0, encoder)
        figures = {"model": name, "form": settings.judge.form, "shots": used, "too_long": len(too_long)}
        measured: Row = {key.removeprefix("judge_"): value for key, value in judge_figures(given).items()}
        right = [((first == 0) + (second == 1)) / 2 for first, second in zip(given[::2], given[1::2], strict=True)]
        measured["accuracy_stderr"] = standard_error_of_mean(right)
        measured["accuracy_low"], measured["accuracy_high"] = mean_interval(right)
        return [{**figures, **measured, "length_bias": length_bias(given, rows, encoder)}]

    async def judged_with(count: int, encoder: Encoder) -> tuple[list[int], int, list[str]]:
        """The verdicts after `count` examples, or as many as fit into the context, how many those were, and the rows
        that are too long even without.
        """
        if count == 0:
            given, too_long = await judged_where_it_fits(settings.engine, encoder, rows, settings.judge)
            return given, 0, too_long
        shown = replace(encoder, shots=judge_shots(examples, encoder, count))
        try:
            return await judged(settings.engine, shown, rows, settings.judge), count, []
        except PromptTooLong:
            return await judged_with(count - 1, encoder)

    judges = ask_models(settings, models, one)
    finish(settings, "judge", {"pairs": len(rows), "judges": judges}, "judges", JUDGE_COLUMNS)


@bounded()
def scoring(
    run: Path, models: list[str] | None = None, limit: Count | None = None, engine: Engine | None = None
) -> None:
    """Compare pairwise judging with scoring on held-out pairs (the paper's Table 6): analysis/scoring.json.

    For a run whose models have learnt to give scores as well (configs/srlm).

    Args:
        run: run directory.
        models: names such as M1; M1 and what came of it if not given.
        limit: only this many pairs of each file, from the first.
        engine: what the models are served by; the run's own if not given.
    """
    settings = read_run_settings(run, engine)
    if not settings.scores:
        raise UsageError(f"{run}: its models have not been trained on scores (data.scores), so that they can give none")
    rows = [row for path in settings.judge_pairs for row in read_pairs(path, limit)]

    async def one(name: str, encoder: Encoder) -> list[Row]:
        return [{"model": name, **row} for row in await study(settings.engine, encoder, rows, settings.judge)]

    judges = ask_models(settings, models or trained(settings), one)
    finish(settings, "scoring", {"pairs": len(rows), "judges": judges}, "judges", SCORING_COLUMNS)


@bounded()
def steps(
    run: Path,
    models: list[str] | None = None,
    benchmarks: list[str] | None = None,
    limit: Count | None = None,
    engine: Engine | None = None,
) -> None:
    """Number and length of the steps of greedy solutions (the paper's Tables 4, 7, 8): analysis/steps.json.

    Their accuracy goes to analysis/evaluation.json, and how it differs from the first model's to comparison.json.

    Args:
        run: run directory.
        models: names such as M1; M1 and what came of it if not given.
        benchmarks: as for psr evaluate; the run's held-out problems if not given.
        limit: only this many problems, from the first.
        engine: what the models are served by; the run's own if not given.
    """
    settings = read_run_settings(run, engine)
    results = evaluated(settings, models, benchmarks, limit, ["greedy"], None)
    compare_with_first(settings.run / "analysis", results, list(dict.fromkeys(row["model"] for row in results)))
    counted = [{**row, "solutions": round(row["finished"] * row["problems"])} for row in results]
    figures = [{key: row[key] for key in ("model", "benchmark", *STEP_FIGURES)} for row in counted]
    finish(settings, "steps", {"models": figures}, "models", STEP_COLUMNS)


@bounded()
def scaling(
    run: Path,
    models: list[str] | None = None,
    widths: list[Count] | None = None,
    methods: list[Method] | None = None,
    benchmarks: list[str] | None = None,
    limit: Count | None = None,
    engine: Engine | None = None,
) -> None:
    """Accuracy against generated tokens when more is tried per problem (Tables 5, 9): analysis/scaling.json.

    Args:
        run: run directory.
        models: names such as M1; M1 and what came of it if not given.
        widths: candidates per step, or solutions; 1, 2, 4, 6, 8 if not given.
        methods: of psr search; if not given greedy, majority and step (self-judged step search), or best_of_n for a run
            that searches whole responses.
        benchmarks: as for psr evaluate; the run's held-out problems if not given.
        limit: only this many problems, from the first.
        engine: what the models are served by; the run's own if not given.
    """
    settings = read_run_settings(run, engine)
    searching: Method = "step" if settings.search.granularity == "step" else "best_of_n"
    chosen: list[Method] = methods or ["greedy", "majority", searching]
    results = evaluated(settings, models, benchmarks, limit, chosen, widths or [1, 2, 4, 6, 8])
    keys = ("model", "benchmark", "method", "width", "problems", "graded", "no_box")
    accuracies = ("accuracy", "accuracy_stderr", "accuracy_low", "accuracy_high")
    points = [{key: row[key] for key in (*keys, *accuracies, "generated_tokens", "prompt_tokens")} for row in results]
    finish(settings, "scaling", {"points": points}, None, {})
    Console().print(results_table(results))


@bounded()
def distribution(
    run: Path, embedding: str = SHIPPED, texts: Count = 300, perplexity: Positive = 30.0, seed: Seed = 0
) -> None:
    """Where IFT, EFT and step-pair data lie in an embedding (the paper's Figure 2): analysis/distribution.json.

    Args:
        run: run directory, with the data of its supervised training.
        embedding: "wordllama" (its package brings its weights along), or the Hugging Face folder or name of a model
            whose hidden states are averaged, for instance the run's models/M1 or google-bert/bert-base-uncased.
        texts: at most this many of each kind.
        perplexity: of t-SNE.
        seed: of the choice of texts, and of t-SNE.
    """
    settings = read_run_settings(run)
    figures = figure2.distribution(texts_of(settings, texts, random.Random(seed)), embedding, perplexity, seed)
    finish(settings, "distribution", figures, None, {})
    table = Table("part", "sets", "told apart %", box=SIMPLE_HEAD, title=f"nearest neighbours in {embedding}")
    for part, pairs in figures["separation"].items():
        for pair, share in pairs.items():
            table.add_row(part, pair, in_percent(share))
    Console().print(table)


@bounded()
def everything(run: Path, limit: Count | None = None, embedding: str = SHIPPED, engine: Engine | None = None) -> None:
    """All of the above for a run, as far as it has the data, one after the other: what `psr report` shows.

    Args:
        run: run directory.
        limit: only this many problems, and pairs, from the first.
        embedding: as for psr analyse distribution.
        engine: what the models are served by; the run's own if not given.
    """
    steps(run, limit=limit, engine=engine)
    judge(run, limit=limit, engine=engine)
    scaling(run, limit=limit, engine=engine)
    settings = read_run_settings(run)
    if settings.scores:
        scoring(run, limit=limit, engine=engine)
    if settings.ift and settings.eft:
        distribution(run, embedding)


def trained(settings: RunSettings) -> list[str]:
    """The models that have learnt to reason and judge: M1 and what came of it."""
    return [name for name in settings.models() if not name.startswith("M0")]


def chosen_models(settings: RunSettings, names: list[str] | None) -> dict[str, Path]:
    found = settings.models()
    if unknown := [name for name in names or [] if name not in found]:
        raise UsageError(f"models names {unknown[0]!r}: the run has {', '.join(found)}")
    return found if names is None else {name: found[name] for name in names}


def ask_models(
    settings: RunSettings, names: list[str] | None, one: Callable[[str, Encoder], Awaitable[list[Row]]]
) -> list[Row]:
    """`await one(name, encoder)` for every model, while the engine serves it; all their rows."""

    async def run() -> list[Row]:
        rows = []
        try:
            for name, folder in chosen_models(settings, names).items():
                await settings.engine.load_weights(folder, str(folder))
                rows += await one(name, Encoder(load_tokenizer(folder), settings.prompts))
        finally:
            await settings.engine.close()
        return rows

    return asyncio.run(run())


def evaluated(
    settings: RunSettings,
    models: list[str] | None,
    benchmarks: list[str] | None,
    limit: Count | None,
    methods: Sequence[Method],
    widths: list[Count] | None,
) -> list[Row]:
    """Results of `psr evaluate` with the run's settings; solutions that are there are not written again."""
    search = settings.search
    strategy = StrategySettings(
        temperature=search.temperature,
        top_p=search.top_p,
        max_tokens=settings.max_tokens,
        max_step_tokens=search.max_step_tokens,
        max_steps=search.max_iterations,
        seed=search.seed,
    )
    names = benchmarks or [str(settings.problems)]
    sets = {benchmark_label(name): read_benchmark(name, limit) for name in names}
    out = settings.run / "analysis"
    judge = replace(settings.judge, kind="self")  # whatever judge the run used, the policy itself is measured here
    how = Evaluation(settings.engine, settings.prompts, judge, strategy, out, methods, widths)
    return asyncio.run(how.run(chosen_models(settings, models or trained(settings)), sets))
