"""`psr data`: makes the JSONL files that the stages read."""

import asyncio
import random
from pathlib import Path
from typing import Any

from psr.data import arithmetic as family
from psr.data.eft import verified_pairs
from psr.data.jsonl import read_jsonl, write_jsonl
from psr.data.problems import read_problems
from psr.encoding import Encoder
from psr.engines.base import Engine
from psr.modules.policy import check_folder, load_tokenizer
from psr.prompts import Prompts
from psr.records import Problem
from psr.search.judges import JudgeSettings, VerifierJudge
from psr.search.run import for_each
from psr.search.step_search import SearchSettings, step_search


def arithmetic(
    out: Path,
    ift: int = 2000,
    eft: int = 600,
    loop: int = 1200,
    validation: int = 200,
    test: int = 500,
    shortest: int = 3,
    longest: int = 5,
    worked_share: float = 0.35,
    seed: int = 0,
) -> None:
    """Write disjoint sets of arithmetic chains: ift.jsonl, eft_problems.jsonl, problems.jsonl, validation.jsonl, ...

    Args:
        out: folder to write.
        ift: worked solutions for supervised training.
        eft: training problems whose sampled steps become judge data.
        loop: problems of the self-rewarding iterations; written without answers.
        validation: problems for held-out judge pairs and the validation loss.
        test: held-out problems with answers.
        shortest: fewest operations of a chain.
        longest: most operations of a chain.
        worked_share: share of steps that are written with their working instead of the result alone.
        seed: seed of everything.
    """
    stream, rng = family.chains(seed, shortest, longest), random.Random(seed)
    sizes = {"test": test, "validation": validation, "problems": loop, "eft_problems": eft, "ift": ift}
    for name, size in sizes.items():
        rows = [_chain_row(f"{name}/{i}", next(stream), name, rng, worked_share) for i in range(size)]
        write_jsonl(out / f"{name}.jsonl", rows)
    print(f"{out}: " + ", ".join(f"{size} {name}" for name, size in sizes.items()))


def _chain_row(
    name: str, chain: family.Chain, kind: str, rng: random.Random, worked_share: float
) -> dict[str, Any]:
    row = {"id": name, "problem": chain.text}
    if kind == "problems":
        return row
    return {**row, "answer": str(chain.answer), "solution": "\n".join(family.solution(chain, rng, worked_share))}


def eft(
    model: Path,
    problems: Path,
    out: Path,
    engine: Engine,
    search: SearchSettings,
    prompts: Prompts,
    pairs_per_step: int = 2,
    limit: int | None = None,
    seed: int = 0,
) -> None:
    """Make judge data of arithmetic steps: the policy's own right and wrong candidates, told apart by the exact verifier.

    Args:
        model: Hugging Face folder of the policy that samples.
        problems: JSONL of training problems.
        out: JSONL to write; one row per pair.
        engine: what samples.
        search: how candidates are sampled.
        prompts: templates and step format.
        pairs_per_step: at most so many pairs at one prefix.
        limit: keep at most so many pairs.
        seed: seed of the sampling and of the choice of pairs.
    """
    encoder, rng = Encoder(load_tokenizer(check_folder(model)), prompts), random.Random(seed)
    judge = VerifierJudge(family.is_right, JudgeSettings(orders="one"))

    async def search_all() -> list[Any]:
        await engine.load_weights(model, model.name)
        return await for_each(
            read_problems(problems),
            lambda problem: step_search(problem, engine, judge, encoder, search),
            f"{model.name} samples",
        )

    trajectories = asyncio.run(search_all())
    rows = [
        row
        for trajectory in trajectories
        for row in verified_pairs(trajectory, family.is_right, family.explain, rng, pairs_per_step)
    ]
    write_jsonl(out, rng.sample(rows, min(limit or len(rows), len(rows))))
    print(f"{out}: {len(rows)} pairs of a right and a wrong step, from {len(trajectories)} problems")
