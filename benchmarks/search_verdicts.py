"""How many verdicts `adaptive` and `knockout` ask for, and whether they find the pairs of a full round robin.

Both are replayed on tables of verdicts that are complete: those of searches, and random ones.
"""

import asyncio
import random
from typing import Any

from rich.console import Console
from rich.table import Table

from psr.records import Candidate, Judgement, Problem, StepNode
from psr.search.judges import JudgeSettings, hold
from psr.search.rounds import Comparisons
from psr.search.step_search import SearchSettings, expand
from search_setup import Setup, searched

RANDOM_NODES = 300
FEWER: tuple[Comparisons, ...] = ("adaptive", "knockout")


def verdicts_asked(setup: Setup, problems: list[Problem], widths: list[int]) -> dict[str, Any]:
    """By width, the share of round robin's verdicts that are asked for, and of nodes with the same best and worst."""
    rows = []
    for width in widths:
        full = searched(setup.of_width(width), problems, "ours").trajectories
        nodes = [node for trajectory in full for node in trajectory.nodes if node.judgements]
        for name, some in (("searched", nodes), ("random", random_nodes(width, RANDOM_NODES))):
            distinct = sum(len({c.text for c in node.candidates}) for node in some) / max(1, len(some))
            row = {"width": width, "verdicts": name, "distinct": distinct}
            rows.append(row | {how: replayed(some, how) for how in FEWER})
    columns = ("w", "verdicts", "candidates", "adaptive %", "same pairs %", "knockout %", "same pairs %")
    table = Table(*columns, title="verdicts asked, as a share of round robin")
    for row in rows:
        cells = [f"{100 * row[how][key]:.1f}" for how in FEWER for key in ("share", "same")]
        table.add_row(str(row["width"]), row["verdicts"], f"{row['distinct']:.2f}", *cells)
    Console().print(table)
    shares = {row["width"]: row["adaptive"]["share"] for row in rows if row["verdicts"] == "searched"}
    return {"verdicts_adaptive_over_round_robin": shares, "comparisons": rows}


def replayed(nodes: list[StepNode], how: Comparisons) -> dict[str, float]:
    """The share of the nodes' verdicts that are asked for, and of the nodes with the same best and worst."""
    asked = same = 0
    for node in nodes:
        winners = {(j.first, j.second): j.winner for j in node.judgements}

        async def ask(questions: list[tuple[int, int]], winners: Any = winners) -> list[Judgement]:
            return [Judgement(*question, winners[question]) for question in questions]

        judgements = asyncio.run(hold(node.candidates, JudgeSettings(comparisons=how), ask))
        got = expand(node.depth, node.candidates, judgements, SearchSettings(ties="advance"))
        asked += len(judgements)
        same += (got.chosen, got.rejected) == (node.chosen, node.rejected)
    total = sum(len(node.judgements) for node in nodes)
    return {"share": asked / max(1, total), "same": same / max(1, len(nodes))}


def random_nodes(width: int, count: int) -> list[StepNode]:
    """Different candidates of random worth, of which a judge names the better one in nine of ten verdicts."""
    rng, nodes = random.Random(width), []
    candidates = tuple(Candidate((i,), str(i), 0.0, False) for i in range(width))
    for _ in range(count):
        worth = [rng.random() for _ in candidates]

        def winner(i: int, j: int, worth: list[float] = worth) -> int:
            best, worst = (i, j) if worth[i] > worth[j] else (j, i)
            return best if rng.random() < 0.9 else worst

        judgements = tuple(Judgement(i, j, winner(i, j)) for i in range(width) for j in range(width) if i != j)
        nodes.append(expand(0, candidates, judgements, SearchSettings(ties="advance")))
    return nodes
