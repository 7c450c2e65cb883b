"""`psr data responses`: judge data of whole responses, for the SRLM baseline."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from psr.curation.response_judging import response_pairs, scored_responses, scored_steps
from psr.engines.base import Engine, Origin, Sampling
from psr.errors import NoPairsError
from psr.files.jsonl import write_jsonl
from psr.files.problems import read_problems
from psr.policy.tokenizer import check_folder, load_tokenizer
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.records import Problem
from psr.search.run import for_each


def responses(
    model: Path,
    problems: Path,
    engine: Engine,
    prompts: Prompts,
    pairs: Path,
    scores: Path | None = None,
    n: int = 6,
    temperature: float = 1.0,
    max_tokens: int = 160,
    pairs_per_problem: int = 1,
    scored_per_problem: int = 2,
    steps_per_problem: int = 1,
    limit: int | None = None,
    seed: int = 0,
) -> None:
    """Make judge data for arithmetic: the policy's own whole responses, compared and scored by the exact verifier.

    Args:
        model: Hugging Face folder of the policy that samples.
        problems: JSONL of training problems.
        engine: what samples.
        prompts: templates and step format.
        pairs: JSONL to write; pairs of a better and a worse response.
        scores: JSONL to write; responses and single steps with 0 to 5 points.
        n: responses sampled per problem.
        temperature: sampling temperature.
        max_tokens: longer responses are dropped.
        pairs_per_problem: at most this many pairs.
        scored_per_problem: at most this many scored responses.
        steps_per_problem: at most this many scored steps.
        limit: keep at most this many pairs.
        seed: seed of the sampling and of the choice of rows.
    """
    encoder, rng = Encoder(load_tokenizer(check_folder(model)), prompts), random.Random(seed)
    asked = read_problems(problems)
    sampling = Sampling(max_tokens, temperature, n=n, seed=seed)
    sampled = asyncio.run(_sample(model, asked, engine, encoder, sampling))
    both = list(zip(asked, sampled, strict=True))
    compared = [row for problem, texts in both for row in response_pairs(problem, texts, rng, pairs_per_problem)]
    if not compared:
        raise NoPairsError(f"{model} left no better and worse response to {len(asked)} problems of {problems}")
    kept = rng.sample(compared, min(limit or len(compared), len(compared)))
    write_jsonl(pairs, kept)
    print(f"{pairs}: {len(kept)} of {len(compared)} pairs of a better and a worse response to {len(asked)} problems")
    if scores is not None:
        wholes = [row for problem, texts in both for row in scored_responses(problem, texts, rng, scored_per_problem)]
        steps = [row for problem, texts in both for row in scored_steps(problem, texts, rng, steps_per_problem)]
        write_jsonl(scores, [*wholes, *steps])
        print(f"{scores}: {len(wholes)} scored responses {_spread(wholes)}, {len(steps)} scored steps {_spread(steps)}")


def _spread(rows: Sequence[dict]) -> str:
    """How many have 0, 1, ... 5 points."""
    points = Counter(row["score"] for row in rows)
    return f"({', '.join(f'{count} with {score}' for score, count in sorted(points.items()))})"


async def _sample(
    model: Path, problems: Sequence[Problem], engine: Engine, encoder: Encoder, sampling: Sampling
) -> list[list[str]]:
    """The finished responses to every problem."""

    async def one(problem: Problem) -> list[str]:
        prompts = [encoder.reason(problem.problem)]
        [completions] = await engine.generate(prompts, sampling, Origin(problem.id, "responses"))
        return [done.text.strip() for done in completions if done.finish_reason == "eos"]

    try:
        await engine.load_weights(model, model.name)
        return await for_each(problems, one, f"{model.name} responds")
    finally:
        await engine.close()
