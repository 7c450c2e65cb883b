"""How well a run on an SGLang server used its prefix cache, and how far the server's answers are from the in-process
engine's on the run's own weights, in float32.

    psr run configs/quickstart --run-dir runs/sglang --overlay sglang
    python benchmarks/sglang.py --run runs/sglang --json runs/sglang/sglang.json

Reads the traces and counts of the run; starts a server of its own for the comparison. `--json OUT` writes the figures.
"""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from psr.data.traces import TraceJournal
from psr.engines.base import Engine, Sampling
from psr.engines.local import LocalEngine
from psr.engines.sglang import Launch, SGLangEngine
from psr.engines.usage import cache_hit_rate, usage_from_json
from psr.files.jsonl import read_json, read_jsonl
from psr.files.problems import read_gold_problems
from psr.policy.tokenizer import load_tokenizer
from psr.prompts.encoder import Encoder
from psr.prompts.judged import judge_prompts
from psr.prompts.templates import Prompts
from psr.run.folder import USAGE, RunFolder
from psr.search.sharing import best_usage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run directory of the quickstart on an SGLang server")
    parser.add_argument("--prompts", type=Path, default=Path("configs/quickstart/prompts.yaml"))
    parser.add_argument("--problems", type=int, default=200, help="problems and judge pairs of the comparison")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    run = RunFolder(options.run.resolve())
    encoder = Encoder(load_tokenizer(run.model(1)), Prompts(**yaml.safe_load(options.prompts.read_text())))
    iterations = [cache_use(run, number, encoder) for number in range(2, 100) if run.traces(number).exists()]
    differences = asyncio.run(compare(run, encoder, options.problems))
    Console().print(cache_table(iterations))
    Console().print(differences)
    if options.json:
        figures = {"iterations": iterations, "engines": differences, "models": read_json(run.results)["models"]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def cache_use(run: RunFolder, number: int, encoder: Encoder) -> dict[str, Any]:
    """Cache hit rates of the search that made M`number`: measured, and the most that its traces allow."""
    measured = usage_from_json(read_json(run.iteration(number) / USAGE))
    best = best_usage(TraceJournal(run.traces(number), f"M{number - 1}").trajectories.values(), encoder)
    figures: dict[str, Any] = {"model": f"M{number - 1}"}
    for kind in ("verdicts", "candidates"):
        rate, most = cache_hit_rate(measured[kind]), cache_hit_rate(best[kind])
        share = None if rate is None or not most else rate / most
        figures[kind] = {"hit_rate": rate, "maximum": most, "share": share}
        figures[kind] |= {"prompt_tokens": measured[kind].prompt_tokens, "in_traces": best[kind].prompt_tokens}
    return figures


def cache_table(iterations: list[dict[str, Any]]) -> Table:
    table = Table("search by", "prompts", "tokens", "hit rate %", "maximum %", "share %", title="prefix cache")
    for row in iterations:
        for kind in ("verdicts", "candidates"):
            one = row[kind]
            rates = [f"{100 * one[name]:.1f}" for name in ("hit_rate", "maximum", "share")]
            table.add_row(row["model"], kind, str(one["prompt_tokens"]), *rates)
    return table


async def compare(run: RunFolder, encoder: Encoder, count: int) -> dict[str, Any]:
    """Greedy solutions and verdict log-probabilities of M1 by both engines."""
    shared, choices = encoder.verdict_choices()
    problems = read_gold_problems(str(run.root / "data/test.jsonl"), count)
    pairs = read_jsonl(run.root / "data/eft_heldout.jsonl", ["problem", "previous_steps", "chosen", "rejected"])[:count]
    asked = [encoder.reason(problem.problem) for problem in problems]
    judged = [prompt + shared for row in pairs for prompt, _, _ in judge_prompts(row, encoder)]

    async def answers(engine: Engine) -> tuple[list[tuple[int, ...]], list[list[float]]]:
        try:
            await engine.load_weights(run.model(1), "M1")
            solved = await engine.generate(asked, Sampling(max_new_tokens=160))
            return [one.token_ids for [one] in solved], await engine.choice_logprobs(judged, choices)
        finally:
            await engine.close()

    log = str(run.root / "benchmark-server.log")
    tokens, logprobs = await answers(SGLangEngine(launch=Launch(device="cpu", dtype="float32", log=log)))
    local_tokens, local_logprobs = await answers(LocalEngine())
    both = list(zip(logprobs, local_logprobs, strict=True))
    apart = [abs(a - b) for one, other in both for a, b in zip(one, other, strict=True)]
    return {
        "greedy_solutions": len(tokens),
        "greedy_solutions_equal": sum(one == other for one, other in zip(tokens, local_tokens, strict=True)),
        "verdict_prompts": len(logprobs),
        "verdict_logprob_max_difference": max(apart),
        "verdicts_equal": sum((one[0] > one[1]) == (other[0] > other[1]) for one, other in both),
    }


if __name__ == "__main__":
    main()
