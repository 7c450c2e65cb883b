"""`psr data`: creates the JSONL files that the stages read."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

from psr.bounds import Count, CountOrNone, Seed, Share, bounded
from psr.commands.annotating import read_benchmarks
from psr.curation import arithmetic as family
from psr.curation.decontamination import without_benchmarks
from psr.errors import UsageError
from psr.files.jsonl import write_jsonl
from psr.files.kinds import GoldRow, Pair, Worked
from psr.files.rows import read_rows


@bounded()
def arithmetic(
    out: Path,
    ift: CountOrNone = 2000,
    eft: CountOrNone = 600,
    loop: CountOrNone = 1200,
    validation: CountOrNone = 200,
    test: CountOrNone = 500,
    shortest: Count = 3,
    longest: Count = 5,
    hard_share: Share = 0.4,
    forgotten_share: Share = 0.6,
    phantom_share: Share = 0.15,
    seed: Seed = 0,
    probes: CountOrNone = 0,
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
        hard_share: share of operations with a carry or a borrow instead of a round operand.
        forgotten_share: share of the carries that the solutions for training forget.
        phantom_share: share of their steps that count a carry too many.
        seed: seed of everything.
        probes: problems set aside for comparing models, written without answers; the other sets are the same without.
    """
    if (slips := forgotten_share + phantom_share) > 1:
        raise UsageError(f"forgotten_share + phantom_share is {slips:g}: shares of the same steps, together at most 1")
    stream, rng = family.chains(seed, shortest, longest, hard_share), random.Random(seed)

    def row(name: str, chain: family.Chain, kind: str) -> dict[str, str]:
        if kind in ("problems", "probes"):
            return {"id": name, "problem": chain.text}
        steps = family.solution(chain, rng, forgotten_share, phantom_share)
        return {"id": name, "problem": chain.text, "answer": str(chain.answer), "solution": "\n".join(steps)}

    sizes = {"test": test, "validation": validation, "problems": loop, "eft_problems": eft, "ift": ift}
    sizes |= {"probes": probes} if probes else {}
    for name, size in sizes.items():
        write_jsonl(out / f"{name}.jsonl", [row(f"{name}/{i}", next(stream), name) for i in range(size)])
    print(f"{out}: " + ", ".join(f"{size} {name}" for name, size in sizes.items()))


def rate(solutions: Path, out: Path) -> None:
    """Rate the steps of arithmetic solutions with the exact verifier: trajectories for a process reward model.

    Args:
        solutions: JSONL of arithmetic chains with `id`, `problem`, `solution` (one step a line), right or wrong.
        out: JSONL to write, in the format that PRMDataModule reads.
    """
    rows: list[dict[str, Any]] = []
    for row in read_rows(solutions, Worked, needs=["id"]):
        steps = row["solution"].split("\n")
        ratings = [1 if family.is_right(row["problem"], steps[:i], step) else -1 for i, step in enumerate(steps)]
        rated = zip(steps, ratings, strict=True)
        chain = [{"completions": [{"text": step, "rating": rating, "chosen": True}]} for step, rating in rated]
        rows.append({"id": row["id"], "problem": row["problem"], "steps": chain})
    write_jsonl(out, rows)
    steps_in_all = [step["completions"][0]["rating"] for row in rows for step in row["steps"]]
    print(f"{out}: {len(rows)} solutions, {steps_in_all.count(1)} right steps and {steps_in_all.count(-1)} wrong ones")


@bounded()
def split(
    solutions: Path,
    pairs: Path,
    test: Path,
    out: Path,
    ift: CountOrNone,
    loop: CountOrNone,
    eft: CountOrNone,
    eft_heldout: CountOrNone,
    eft_problems: CountOrNone = 0,
    validation: CountOrNone = 0,
    benchmarks: list[str] | None = None,
    seed: Seed = 0,
) -> None:
    """Split JSONL files of worked problems and judged step pairs into the files that a recipe's stages read.

    Args:
        solutions: training problems with `id`, `problem`, `solution`, `answer`.
        pairs: step pairs with `problem`, `previous_steps`, `chosen`, `rejected`.
        test: held-out problems with `id`, `problem`, `answer`.
        out: folder to write.
        ift: how many of the solutions become ift.jsonl.
        loop: how many others become problems.jsonl, without solution and answer.
        eft: about how many pairs become eft.jsonl.
        eft_heldout: how many pairs, on problems that eft.jsonl does not have, become eft_heldout.jsonl.
        eft_problems: how many solutions more become eft_problems.jsonl: the policy's steps on them become judge data.
        validation: how many solutions more become validation.jsonl, to choose settings by.
        benchmarks: sources whose problems are dropped from solutions and pairs.
        seed: seed of the split.
    """
    rng, held_back = random.Random(seed), read_benchmarks(benchmarks)
    dropped = Counter[str]()
    worked = list(without_benchmarks(read_rows(solutions, Worked, needs=["id", "answer"]), held_back, dropped))
    asked = ift + loop + eft_problems + validation
    if asked > len(worked):
        raise UsageError(
            f"ift + loop + eft_problems + validation is {asked}, and {solutions} has {len(worked)} problems"
            f"{' that no benchmark has' * bool(dropped)}: ask for fewer"
        )
    rng.shuffle(worked)
    write_jsonl(out / "ift.jsonl", worked[:ift])
    unlabelled = [{"id": row["id"], "problem": row["problem"]} for row in worked[ift : ift + loop]]
    write_jsonl(out / "problems.jsonl", unlabelled)
    others = worked[ift + loop : asked]
    for name, part in {"eft_problems": others[:eft_problems], "validation": others[eft_problems:]}.items():
        if part:
            write_jsonl(out / f"{name}.jsonl", part)
    judged = list(without_benchmarks(read_rows(pairs, Pair), held_back, dropped))
    by_problem: dict[str, list[dict[str, Any]]] = {}
    for row in judged:
        by_problem.setdefault(row["problem"], []).append(row)
    groups = list(by_problem.values())
    rng.shuffle(groups)
    heldout: list[dict[str, Any]] = []
    while groups and len(heldout) < eft_heldout:
        heldout += groups.pop()
    training = [row for group in groups for row in group]
    if eft > len(training):
        raise UsageError(
            f"eft + eft_heldout is {eft + eft_heldout}, and {pairs} has {len(judged)} pairs: ask for fewer"
        )
    write_jsonl(out / "eft_heldout.jsonl", heldout[:eft_heldout])
    write_jsonl(out / "eft.jsonl", rng.sample(training, eft))
    write_jsonl(out / "test.jsonl", read_rows(test, GoldRow, needs=["id", "answer"]))
    more = f" + {eft_problems} + {validation}" if eft_problems or validation else ""
    print(f"{out}: {ift}{more} solutions, {loop} problems without answers, {eft} + {eft_heldout} step pairs")
