"""Step-wise DPO on the same step pairs, in the same optimizer steps: TRL's DPOTrainer, pair by pair, and step trees.

    python benchmarks/step_dpo.py --json runs/step_dpo.json

One epoch from the same random weights, AdamW, bf16 autocast; the reference's log-probabilities are computed first, and
counted. A measurement has a process of its own; the ways alternate, and the figures are medians. The pairs are random
token ids, a prompt of about 100 tokens and steps of about 40, or with `--pairs` trajectories of judged steps. TRL
(`pip install psr[benchmark]`) has two settings: `--micro-batch` pairs padded together (8 is its default, and about as
many as a row of step trees holds), and one pair at a time, which needs less padding and memory. "trl" alone in a figure
is the faster one. A setting that the machine's memory is too small for is shown as such.

"tokens" is what goes through the model for every token that goes through it as step trees: the limit of the speed-up.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from peers import FIRST_TOKEN, SHAPES, VOCABULARY, in_own_process, machine, make_model
from psr.files.jsonl import read_jsonl
from psr.policy.tokenizer import load_tokenizer
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.trees.packing import Group, Unit
from psr.trees.step_tree import Sample
from step_dpo_ways import Job, as_step_trees, by_trl, pair_by_pair, pairs_of

FOCUS = 8
"""Steps per trajectory of the headline figures."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--model", type=Path, help="a Hugging Face folder instead of random weights")
    parser.add_argument("--pairs", type=Path, help="JSONL of judged step pairs, in the tokens of --model")
    parser.add_argument(
        "--steps", type=int, nargs="*", default=[2, 4, 16], help="other steps per trajectory, one batch of each, once"
    )
    parser.add_argument("--batch", type=int, default=8, help="pairs per optimizer step")
    parser.add_argument("--optimizer-steps", type=int, default=2)
    parser.add_argument("--row-tokens", type=int, default=1024, help="token budget of a row of step trees")
    parser.add_argument("--micro-batch", type=int, default=8, help="pairs that TRL pads and computes together")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    count = options.batch * options.optimizer_steps
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or make_model(options.shape, Path(folder) / "model")
        focus = focus_groups(options.pairs, options.model, count, options.shape)
        jobs = {FOCUS: Job(str(model), tuple(focus), options.batch, options.row_tokens)}
        for steps in options.steps:
            groups = random_groups(steps, max(options.batch, steps), options.shape)
            jobs[steps] = Job(str(model), tuple(groups), options.batch, options.row_tokens)
        results = {}
        for steps, job in jobs.items():
            results[steps] = compare(steps, job, options.micro_batch, options.repeats if steps == FOCUS else 1)
            Console().print(table(results[steps]))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        sweep = {steps: figures(result) for steps, result in results.items()}
        whole = {**figures(results[FOCUS]), "machine": machine(), "sweep": sweep, "measured": results}
        options.json.write_text(json.dumps(whole, indent=2) + "\n")


def random_groups(steps: int, count: int, shape: str) -> list[Group]:
    """`count` pairs of trajectories of `steps` steps each, the last one perhaps cut short."""
    rng = random.Random(steps)

    def words(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(FIRST_TOKEN, VOCABULARY[shape]) for _ in range(rng.randint(low, high)))

    groups: list[Group] = []
    number = 0
    while number < count:
        prefix, units = words(80, 120), []
        for _ in range(min(steps, count - number)):
            chosen, rejected = words(30, 50), words(30, 50)
            units.append(Unit(number, (Sample(prefix, chosen), Sample(prefix, rejected))))
            prefix += chosen
            number += 1
        groups.append(tuple(units))
    return groups


def focus_groups(pairs: Path | None, model: Path | None, count: int, shape: str) -> list[Group]:
    if pairs is None:
        return random_groups(FOCUS, count, shape)
    if model is None:
        raise SystemExit("--pairs are texts: name the Hugging Face folder of their tokens with --model")
    return judged_groups(pairs, Encoder(load_tokenizer(model), Prompts()), count)


def judged_groups(path: Path, encoder: Encoder, count: int) -> list[Group]:
    """`count` pairs of the first trajectories in a JSONL of judged step pairs that have `FOCUS` of them."""
    problems: dict[str, list[dict[str, Any]]] = {}
    for row in read_jsonl(path, ["problem", "previous_steps", "chosen", "rejected"]):
        problems.setdefault(row["problem"], []).append(row)
    chains = [chain[:FOCUS] for rows in problems.values() if len(chain := growing(rows)) >= FOCUS]

    def step_ids(number: int, step: str) -> tuple[int, ...]:
        return encoder.completion(encoder.prompts.format_step(number, step, last=False), final=False)

    def unit(number: int, row: dict[str, Any]) -> Unit:
        steps = [*row["previous_steps"], row["chosen"]]
        *before, chosen = (step_ids(number, step) for number, step in enumerate(steps, 1))
        rejected = step_ids(len(steps), row["rejected"])
        prompt = encoder.reason(row["problem"]) + tuple(token for step in before for token in step)
        return Unit(number, (Sample(prompt, chosen), Sample(prompt, rejected)))

    numbered = iter(range(count))
    return [tuple(unit(next(numbered), row) for row in chain) for chain in chains[: count // FOCUS]]


def growing(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pairs of one problem whose earlier steps continue each other."""
    chain: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: len(row["previous_steps"])):
        last = chain[-1]["previous_steps"] if chain else None
        if last is None or (len(row["previous_steps"]) > len(last) and row["previous_steps"][: len(last)] == last):
            chain.append(row)
    return chain


def compare(steps: int, job: Job, micro_batch: int, repeats: int) -> dict[str, Any]:
    """Medians of every way's seconds and peak memory, its tokens and its losses; the ways take turns.

    `steps` is how many a trajectory has; `None` is a way that was killed, which is not tried again.
    """
    ways: dict[str, Callable[[], dict[str, Any] | None]] = {
        f"TRL, {micro_batch} pairs at a time": partial(in_own_process, by_trl, job, micro_batch),
        "TRL, one pair at a time": partial(in_own_process, by_trl, job, 1),
        "pair by pair": partial(in_own_process, pair_by_pair, job),
        "step trees": partial(in_own_process, as_step_trees, job),
    }
    runs: dict[str, list[dict[str, Any] | None]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, measure in ways.items():
            if None not in runs[name]:
                runs[name].append(run := measure())
                Console().print(f"{steps} steps, {name}:", f"{run['seconds']:.1f} s" if run else "killed")
    return {
        "pairs": len(pairs_of(job)),
        "steps": steps,
        "ways": {
            name: medians([run for run in found if run]) if None not in found else None for name, found in runs.items()
        },
    }


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **runs[0],
        "seconds": median(run["seconds"] for run in runs),
        "peak_memory": median(run["peak_memory"] for run in runs),
        "all_seconds": [run["seconds"] for run in runs],
    }


def figures(result: dict[str, Any]) -> dict[str, float | None]:
    """The comparison in numbers; `None` where TRL's micro-batches needed more memory than there is."""
    padded, single, pairs, trees = result["ways"].values()
    trl = min(filter(None, (padded, single)), key=lambda way: way["seconds"])
    others = [
        loss for way in (padded, single, pairs) if way for loss in zip(way["losses"], trees["losses"], strict=True)
    ]

    def over_trees(way: dict[str, Any] | None, name: str) -> float | None:
        return way[name] / trees[name] if way else None

    return {
        "speedup_vs_trl": over_trees(trl, "seconds"),
        "speedup_vs_trl_micro_batches": over_trees(padded, "seconds"),
        "speedup_vs_pairs": over_trees(pairs, "seconds"),
        "token_ratio": over_trees(trl, "tokens"),
        "token_ratio_micro_batches": over_trees(padded, "tokens"),
        "token_ratio_vs_pairs": over_trees(pairs, "tokens"),
        "memory_vs_trl": trees["peak_memory"] / trl["peak_memory"],
        "memory_vs_trl_micro_batches": trees["peak_memory"] / padded["peak_memory"] if padded else None,
        "max_loss_difference": max(abs(one - other) for one, other in others),
    }


def table(result: dict[str, Any]) -> Table:
    out = Table(
        "", "pairs/s", "speed", "tokens", "peak memory", "losses", title=f"{result['steps']} steps a trajectory"
    )
    trees = result["ways"]["step trees"]
    for name, way in result["ways"].items():
        if way is None:
            out.add_row(name, "", "", "", "more than there is", "")
            continue
        out.add_row(
            name,
            f"{result['pairs'] / way['seconds']:.3f}",
            f"1/{way['seconds'] / trees['seconds']:.2f}",
            f"{way['tokens'] / trees['tokens']:.2f}",
            f"{way['peak_memory'] / 2**30:.2f} GiB",
            " ".join(f"{loss:.4f}" for loss in way["losses"]),
        )
    return out


if __name__ == "__main__":
    main()
