"""`psr data eft --from verifier | prm800k | search`: judged step pairs, explained by an annotator if there is one.

Killed and started again with the same arguments, a command sends the annotator only requests without a reply, and
searches only the problems that it has not searched.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from psr.bounds import Count, CountOrNone, Seed, Share, bounded
from psr.commands.annotating import beside, fingerprint, read_benchmarks
from psr.commands.eft_output import finish
from psr.curation import arithmetic as family
from psr.curation.annotated import SCHEMA, EFTData, usable_pairs
from psr.curation.annotator.settings import Endpoint
from psr.curation.eft import verified_pairs
from psr.curation.prm800k import rated_pairs, read_trajectories
from psr.curation.sources import located
from psr.curation.word_problems import WorkedSteps
from psr.engines.base import Engine
from psr.errors import NoPairsError
from psr.files.jsonl import DataError, append_row, read_appended
from psr.files.kinds import Pair
from psr.files.problems import read_problems
from psr.files.rows import read_rows
from psr.files.tables import is_table, read_table, write_table
from psr.policy.tokenizer import check_folder, load_tokenizer
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.records import Problem, Trajectory, trajectory_from_json
from psr.search.fitting import fitting
from psr.search.judges import JudgeSettings, VerifierJudge
from psr.search.prm import PRM
from psr.search.run import hand_over
from psr.search.step_search import SearchSettings, step_search
from psr.search.tree_search import SearchedTree, TreeSettings, layer_pairs, tree_from_json, tree_search


@bounded()
def verifier(
    model: Path,
    problems: Path,
    out: Path,
    engine: Engine,
    search: SearchSettings,
    prompts: Prompts,
    worked: Path | None = None,
    pairs_per_step: Count = 2,
    limit: Count | None = None,
    annotator: Endpoint | None = None,
    heldout: CountOrNone = 0,
    dry_run: bool = False,
    seed: Seed = 0,
) -> None:
    """Make judge data: the policy's own correct and wrong steps, told apart by a verifier.

    What was sampled is kept in <out>.samples.jsonl.

    Args:
        model: Hugging Face folder of the policy that samples.
        problems: JSONL of training problems.
        out: file to write; one row per pair.
        engine: what samples.
        search: how candidates are sampled.
        prompts: templates and step format.
        worked: JSONL of worked solutions of these problems, whose equations rate the steps; without it the problems are
            chains of the generator, with an exact verifier.
        pairs_per_step: at most so many pairs at one prefix.
        limit: keep at most this many pairs.
        annotator: writes the explanations, and must agree with the verifier, which explains if there is none.
        heldout: about this many pairs, on problems of their own, go to <out>.heldout.jsonl.
        dry_run: sample, then print what the annotator would be asked.
        seed: seed of the sampling and of the choice of pairs.
    """
    encoder, rng = Encoder(load_tokenizer(check_folder(model)), prompts), random.Random(seed)
    steps = None if worked is None else WorkedSteps.read(worked)
    rate, write = (family.is_right, family.explain) if steps is None else (steps.rate, steps.explain)
    judge = VerifierJudge(rate, JudgeSettings(orders="one"))

    asked = fitting(read_problems(problems), encoder, model, problems)
    made_by = {"model": fingerprint(model), "worked": worked and str(worked), "search": asdict(search)}
    sampled = searched(
        beside(out, "samples.jsonl"),
        made_by,
        asked,
        lambda problem: step_search(problem, engine, judge, encoder, search),
        [lambda: engine.load_weights(model, model.name)],
        [engine],
        f"{model.name} samples",
    )
    trajectories = [trajectory_from_json(json.dumps(row)) for row in sampled]
    explain = write if annotator is None else None
    rows = [
        row for trajectory in trajectories for row in verified_pairs(trajectory, rate, explain, rng, pairs_per_step)
    ]
    if not rows:
        raise NoPairsError(
            f"{model} left no pair of a right and a wrong step on {len(trajectories)} problems of {problems}: "
            "train it longer, or raise search.temperature"
        )
    print(f"{len(rows)} pairs of a right and a wrong step, from {len(trajectories)} problems")
    chosen = rng.sample(rows, min(limit or len(rows), len(rows)))
    if annotator is None and not heldout:
        write_table(out, [{"schema": SCHEMA, **row} for row in chosen])
        print(f"{out}: {len(chosen)} pairs")
    else:
        finish(chosen, EFTData(), out, prompts, annotator, heldout, dry_run, seed, f"verifier, steps of {model}")


@bounded()
def prm800k(
    ratings: Path,
    out: Path,
    prompts: Prompts | None = None,
    annotator: Endpoint | None = None,
    benchmarks: list[str] | None = None,
    heldout: CountOrNone = 0,
    limit: Count | None = None,
    dry_run: bool = False,
    seed: Seed = 0,
) -> None:
    """Make judge data from human step ratings: at the same prefix, one step rated good and one rated bad.

    Args:
        ratings: "prm800k" or another hub set, a file of rated trajectories (PRM800K's format or ours), or of pairs
            (`problem`, `previous_steps`, `chosen`, `rejected`).
        out: .jsonl or .parquet to write; rejects, held-out pairs and the data card go beside it.
        prompts: templates and step format.
        annotator: writes explanations, and must agree with the ratings; without one there are verdicts alone.
        benchmarks: sources whose problems are rejected.
        heldout: about this many pairs, on problems of their own, go to <out>.heldout.jsonl.
        limit: take at most this many pairs, chosen by the seed.
        dry_run: print what the annotator would be asked; send and write nothing.
        seed: choice of pairs, split and order.
    """
    pairs = read_pairs(ratings)
    if limit is not None and limit < len(pairs):
        pairs = random.Random(seed).sample(pairs, limit)
    data = EFTData()
    usable = usable_pairs(pairs, read_benchmarks(benchmarks), data)
    finish(usable, data, out, prompts or Prompts(), annotator, heldout, dry_run, seed, f"ratings of {ratings.name}")


def read_pairs(ratings: Path) -> list[dict[str, Any]]:
    """The pairs of a file that holds pairs, or rated trajectories."""
    ratings = Path(located(str(ratings)))
    if not is_table(ratings) or "chosen" not in read_table(ratings, [], ["chosen"])[0]:
        return [pair for trajectory in read_trajectories(ratings) for pair in rated_pairs(trajectory)]
    return [{"id": f"{ratings.stem}/{i}", **row} for i, row in enumerate(read_rows(ratings, Pair))]


@bounded()
def search(
    model: Path,
    problems: Path,
    out: Path,
    engine: Engine,
    prm: PRM,
    search: TreeSettings,
    prompts: Prompts,
    margin: Share = 0.1,
    annotator: Endpoint | None = None,
    benchmarks: list[str] | None = None,
    heldout: CountOrNone = 0,
    limit: Count | None = None,
    dry_run: bool = False,
    concurrency: Count = 256,
    seed: Seed = 0,
) -> None:
    """Make judge data as in the paper: tree search, best and worst of a layer by the PRM, confirmed by an annotator.

    Searched trees are kept in <out>.trees.jsonl, replies in <out>.replies.jsonl.

    Args:
        model: Hugging Face folder of the policy that proposes steps.
        problems: JSONL of training problems.
        out: .jsonl or .parquet to write; rejects, held-out pairs and the data card go beside it.
        engine: what samples.
        prm: the process reward model, with an engine of its own.
        search: how a tree is grown.
        prompts: templates and step format.
        margin: best and worst form a pair only if their P("+") differ by at least this.
        annotator: writes explanations, and must agree with the PRM; without one there are verdicts alone.
        benchmarks: sources whose problems are rejected.
        heldout: about this many pairs, on problems of their own, go to <out>.heldout.jsonl.
        limit: take at most this many pairs, chosen by the seed.
        dry_run: search, then print what the annotator would be asked.
        concurrency: most problems under way at the same time.
        seed: choice of pairs, split and order; the search has a seed of its own.
    """
    encoder = Encoder(load_tokenizer(check_folder(model)), prompts)
    asked = fitting(read_problems(problems), encoder, model, problems)
    trees = grow(model, asked, out, engine, prm, search, encoder, concurrency)
    pairs = [pair for tree in trees for pair in layer_pairs(tree, margin)]
    layers = sum(len(tree.layers) for tree in trees)
    print(f"{layers} layers of {len(trees)} trees: {len(pairs)} with a margin of {margin:g}")
    if limit is not None and limit < len(pairs):
        pairs = random.Random(seed).sample(pairs, limit)
    data = EFTData()
    usable = usable_pairs(pairs, read_benchmarks(benchmarks), data)
    origin = f"{layers} layers of {len(trees)} trees of {model}, PRM {prm.model}, margin {margin:g}"
    finish(usable, data, out, prompts, annotator, heldout, dry_run, seed, origin)


def grow(
    model: Path,
    problems: Sequence[Problem],
    out: Path,
    engine: Engine,
    prm: PRM,
    settings: TreeSettings,
    encoder: Encoder,
    concurrency: Count,
) -> list[SearchedTree]:
    """The trees of all problems, in order; those in the journal are not searched again."""
    rows = searched(
        beside(out, "trees.jsonl"),
        {"model": fingerprint(model), "prm": fingerprint(prm.model), "search": asdict(settings)},
        problems,
        lambda problem: tree_search(problem, engine, prm, encoder, settings),
        [lambda: engine.load_weights(model, model.name), prm.load],
        [engine, prm.engine],
        f"{model.name} searches trees",
        concurrency,
    )
    return [tree_from_json(row) for row in rows]


def searched(
    journal: Path,
    made_by: Mapping[str, Any],
    problems: Sequence[Problem],
    search: Callable[[Problem], Awaitable[Trajectory | SearchedTree]],
    loads: Sequence[Callable[[], Awaitable[None]]],
    engines: Sequence[Engine],
    title: str,
    concurrency: int = 512,
) -> list[dict[str, Any]]:
    """What `search` finds for all problems, in order, as JSON; what is in the journal is not searched again.

    `loads` are awaited first, if anything is searched at all; `engines` are closed at the end. Raises DataError where
    the journal was `made_by` something else.
    """
    kept = read_appended(journal)
    for row in kept:
        if row["made_by"] != made_by:
            raise DataError(
                f"{journal} was made by another model or other settings, {row['made_by']}: choose another out"
            )
    done = {row["problem"]["id"] for row in kept}
    missing = [problem for problem in problems if problem.id not in done]

    async def run() -> None:
        try:
            for load in loads:
                await load()
            keep = lambda found: append_row(journal, {"made_by": made_by, **asdict(found)})  # noqa: E731
            await hand_over(missing, search, keep, title, concurrency)
        finally:
            for engine in engines:
                await engine.close()

    if missing:
        asyncio.run(run())
    rows = {row["problem"]["id"]: row for row in read_appended(journal)}
    return [{key: value for key, value in rows[problem.id].items() if key != "made_by"} for problem in problems]
